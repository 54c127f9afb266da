"""MAGVIT's 3D-VQ backbone (arXiv 2212.05199, section 3.1): not causal.

Convolutions that are centred in time, average pools down, nearest neighbours
and a convolution up, group norms over the whole clip: every latent sees every
frame, so a clip has to be coded at once. With `kernel=(1, 3, 3)` and strides of
1 in time it is the 2D-VQ of images that the video net is inflated from.

| published net | size     | width  | multipliers | strides in time |
|---------------|----------|--------|-------------|-----------------|
| UCF-101 B, L  | 16x128^2 | 64 128 | 1 2 2 4     | 2 2 1           |
| BAIR B, L     | 16x64^2  | 64 128 | 1 2 4       | 2 2             |
"""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import blocks, pairs
from magvit_jax.nn.conv import Conv
from magvit_jax.nn.group_norm import ClipGroupNorm
from magvit_jax.nn.resample import average_pool, nearest
from magvit_jax.tokenizers.levels import (
  Strides,
  check_frame,
  check_levels,
  total_stride,
)
from magvit_jax.types import Array

POINT = (1, 1, 1)
PIXELS = ("signed", "unit")


class Residual(nn.Module):
  """Norm, swish, convolution, twice; a 1x1x1 shortcut where the width changes.

  Without biases, as published: a norm follows each convolution but the last.
  `pairs` says whether x holds frames in pairs, see nn/pairs.py.
  """

  features: int
  kernel: Strides
  dtype: jnp.dtype
  pairs: bool
  remat: str = "none"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    copies = 2 if self.pairs else 1
    conv = dict(use_bias=False, dtype=self.dtype, pairs=both(self.pairs))
    h = blocks.swish(ClipGroupNorm(self.pairs), x, self.remat)
    h = Conv(self.features, self.kernel, **conv)(h)
    h = blocks.swish(ClipGroupNorm(self.pairs), h, self.remat)
    h = Conv(self.features, self.kernel, **conv)(h)
    if x.shape[-1] != copies * self.features:
      x = Conv(self.features, POINT, name="shortcut", **conv)(x)
    return x + h


def both(paired: bool) -> str:
  """What Conv calls a level with or without pairs."""
  return "both" if paired else "none"


def stack(
  c: "Backbone", features: int, name: str, paired: bool = False
) -> nn.Sequential:
  """The blocks of a level."""
  block = blocks.remat(Residual, c.remat)
  return nn.Sequential(
    [
      block(
        features, c.kernel, c.dtype, paired, c.remat, name=f"{name}_block{i}"
      )
      for i in range(c.blocks)
    ]
  )


class Encoder(nn.Module):
  """[b t h w 3] -> [b T H W latent_dim]; fields as Backbone."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, video: Array) -> Array:
    c = self.cfg
    conv = dict(use_bias=False, dtype=c.dtype, pairs=both(c.paired))
    x = pairs.fold(video) if c.paired else video
    x = Conv(c.width, c.kernel, name="stem", **conv)(x)
    for level, multiplier in enumerate(c.multipliers):
      paired = c.paired and not level
      x = stack(c, c.width * multiplier, f"level{level}", paired)(x)
      if level < len(c.strides):
        _, *space = c.strides[level]
        size = (1, *space) if paired else c.strides[level]
        x = average_pool(x, size)
        x = pairs.merge(x) if paired else x
    x = stack(c, x.shape[-1], "middle")(x)
    x = blocks.swish(ClipGroupNorm(), x, c.remat)
    return nn.Dense(c.latent_dim, dtype=jnp.float32, name="head")(x)


class Decoder(nn.Module):
  """[b T H W latent_dim] -> [b t h w 3]; mirrors Encoder."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, codes: Array) -> Array:
    c = self.cfg
    conv = dict(kernel=c.kernel, dtype=c.dtype)
    widest = c.width * c.multipliers[-1]
    x = Conv(widest, name="stem", **conv)(codes)
    x = stack(c, widest, "middle")(x)
    for level, multiplier in reversed(list(enumerate(c.multipliers))):
      features = c.width * multiplier
      x = stack(c, features, f"level{level}", c.paired and not level)(x)
      if level:
        # Into pairs, a frame is repeated in time by the convolution itself.
        pairing = c.paired and level == 1
        _, *space = c.strides[level - 1]
        x = nearest(x, (1, *space) if pairing else c.strides[level - 1])
        out = "out" if pairing else "none"
        x = Conv(features, name=f"level{level}_up", pairs=out, **conv)(x)
    x = blocks.swish(ClipGroupNorm(c.paired), x, c.remat)
    x = Conv(3, name="head", pairs=both(c.paired), **conv)(x)
    x = pairs.unfold(x) if c.paired else x
    return x.astype(jnp.float32)


class Backbone(nn.Module):
  """MAGVIT's 3-D CNN.

  Attributes:
    latent_dim: channels of a latent, set by the quantizer; 256 is published.
    width: base number of channels, 64 (B) or 128 (L).
    multipliers: channels per level over `width`.
    blocks: residual blocks per level, and again at the coarsest one, in the
      encoder and in the decoder.
    strides: (time, height, width) of each of the len(multipliers) - 1 steps
      between levels.
    kernel: (time, height, width) of the convolutions.
    pixels: range inside the net, 'signed' in [-1,1] or 'unit' in [0,1], which
      the official code has; the zeros around frames are grey or black. Videos
      are in [-1,1] outside either way.
    remat: what the backward pass keeps, 'none' (all), 'dots' or 'full'; see
      nn/blocks.py.
    dtype: of the convolutions; the latents and the pixels are float32.
  """

  latent_dim: int
  width: int = 64
  multipliers: tuple[int, ...] = (1, 2, 2, 4)
  blocks: int = 2
  strides: tuple[Strides, ...] = ((2, 2, 2), (2, 2, 2), (1, 2, 2))
  kernel: Strides = (3, 3, 3)
  pixels: str = "signed"
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  causal = False

  def __post_init__(self):
    super().__post_init__()
    check_levels("cnn3d", self.multipliers, self.strides)
    messages.check_choice("cnn3d: pixels", self.pixels, PIXELS)
    messages.check_choice("cnn3d: remat", self.remat, blocks.REMAT)

  def setup(self):
    self.encoder = Encoder(self.clone(parent=None))
    self.decoder = Decoder(self.clone(parent=None))

  @property
  def paired(self) -> bool:
    """Whether the finest level holds its frames in pairs."""
    if not self.strides:
      return False
    width = self.width * self.multipliers[0]
    return pairs.pay(width, self.kernel[0], self.strides[0][0])

  @property
  def signed(self) -> bool:
    """Whether pixels are in [-1,1] inside the net too."""
    return self.pixels == "signed"

  @property
  def stride(self) -> Strides:
    """Pixels per token in time, height and width."""
    return total_stride((1, 1, 1), self.strides)

  def latent_shape(self, t: int, h: int, w: int) -> tuple[int, ...]:
    """(T, H, W, latent_dim) of a clip of t frames of h x w.

    Raises:
      ValueError: a size that the strides do not divide.
    """
    st, sh, sw = self.stride
    if t < 1 or t % st:
      raise ValueError(
        f"cnn3d: {t} frames are not divisible by the temporal stride of {st}: "
        f"use k * {st}, such as {max(t // st, 1) * st}"
      )
    check_frame("cnn3d", h, w, self.stride)
    return t // st, h // sh, w // sw, self.latent_dim

  def encode(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1] -> latents [b T H W d]."""
    self.latent_shape(*video.shape[1:4])
    return self.encoder(video if self.signed else (video + 1) / 2)

  def decode(self, codes: Array) -> Array:
    """Codes [b T H W d] -> video [b t h w 3], not clipped."""
    video = self.decoder(codes)
    return video if self.signed else 2 * video - 1


TINY = dict(
  latent_dim=4,
  width=8,
  multipliers=(1, 2),
  blocks=1,
  strides=((2, 2, 2),),
)
