"""Backbone of Open-MAGVIT2's video tokenizer (arXiv 2409.04410): not causal.

SEED-Voken's reading of MAGVIT-v2: 1+4k frames become 1+k latent frames through
convolutions that are causal in time. Its group norms and the norms that lead
the decoder take the moments of the whole clip, so every latent sees every frame
all the same, and a clip is coded at once; an image is a clip of one frame.

Where it differs from causal3d besides, so that public weights need this file:
strided convolutions have a zero on either side in space; of two frames made
from the first latent frame the second is dropped, not the first; convolutions
of the blocks have no bias.

Published: 17x128x128 -> 5x16x16 ids of 18 bits, `width=128,
multipliers=(1, 2, 2, 4), blocks=4`.
"""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import blocks
from magvit_jax.nn.conv import conv3d
from magvit_jax.nn.group_norm import EPS, ClipGroupNorm
from magvit_jax.nn.norm import group_norm
from magvit_jax.nn.resample import depth_to_space
from magvit_jax.tokenizers.levels import (
  Strides,
  causal_grid,
  check_levels,
  total_stride,
)
from magvit_jax.types import Array

CLIP = (-4, -3, -2)  # time, height and width of [b t h w c]


class Conv(nn.Module):
  """Convolution of [b t h w c]: zeros before the first frame and around each.

  1+st*k frames of h x w become 1+k of h/sh x w/sw.
  """

  features: int
  kernel: Strides = (3, 3, 3)
  strides: Strides = (1, 1, 1)
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (*self.kernel, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    past, *space = (k - 1 for k in self.kernel)
    rows, columns = ((n // 2, n // 2) for n in space)
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    x = conv3d(x, kernel, self.strides, rows, columns, (past, 0))
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)
    return x


class Residual(nn.Module):
  """Norm, swish, convolution, twice; a 1x1x1 shortcut where the width changes.

  The blocks of cnn3d, with convolutions that look back in time alone.
  """

  features: int
  dtype: jnp.dtype
  remat: str = "none"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = dict(use_bias=False, dtype=self.dtype)
    h = blocks.swish(ClipGroupNorm(name="norm1"), x, self.remat)
    h = Conv(self.features, name="conv1", **conv)(h)
    h = blocks.swish(ClipGroupNorm(name="norm2"), h, self.remat)
    h = Conv(self.features, name="conv2", **conv)(h)
    if x.shape[-1] != self.features:
      x = Conv(self.features, (1, 1, 1), name="shortcut", **conv)(x)
    return x + h


class AdaptiveNorm(nn.Module):
  """Group norm of a clip, scaled and shifted by the codes of that clip.

  Their standard deviation gives the scale and their mean the shift, per
  channel. Starts as a plain norm.
  """

  @nn.compact
  def __call__(self, x: Array, codes: Array) -> Array:
    """x [b t h w c] led by codes [b T H W d]."""
    c = x.shape[-1]
    codes = codes.astype(jnp.float32).reshape(
      codes.shape[0], -1, codes.shape[-1]
    )
    spread = jnp.sqrt(jnp.var(codes, 1, ddof=1) + EPS)
    init = nn.initializers
    scale = nn.Dense(
      c, kernel_init=init.zeros, bias_init=init.ones, name="scale"
    )(spread)
    shift = nn.Dense(c, kernel_init=init.zeros, name="shift")(
      jnp.mean(codes, 1)
    )
    scale, shift = (s[:, None, None, None] for s in (scale, shift))
    return group_norm(x, scale, shift, CLIP)


def upsample(x: Array, size: Strides) -> Array:
  """Depth to space of [b 1+k h w c]; of the first `st` frames one is kept.

  Args:
    x: channels are blocks of pixels.
    size: (st, sh, sw) of a block.
  """
  x = depth_to_space(x, size)
  return jnp.concatenate([x[:, :1], x[:, size[0] :]], axis=1)


def stack(c: "Backbone", features: int, name: str) -> list[nn.Module]:
  """The blocks of a level."""
  block = blocks.remat(Residual, c.remat)
  return [
    block(features, c.dtype, c.remat, name=f"{name}_block{i}")
    for i in range(c.blocks)
  ]


class Encoder(nn.Module):
  """[b t h w 3] -> [b T H W latent_dim]; fields as Backbone."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, video: Array) -> Array:
    c = self.cfg
    layers = [Conv(c.width, use_bias=False, dtype=c.dtype, name="stem")]
    for level, multiplier in enumerate(c.multipliers):
      features = c.width * multiplier
      layers += stack(c, features, f"level{level}")
      if level < len(c.strides):
        down = dict(strides=c.strides[level], name=f"level{level}_down")
        layers.append(Conv(features, dtype=c.dtype, **down))
    layers += stack(c, features, "middle")
    x = nn.Sequential(layers)(video)
    x = blocks.swish(ClipGroupNorm(name="norm"), x, c.remat)
    return nn.Dense(c.latent_dim, dtype=jnp.float32, name="head")(x)


class Decoder(nn.Module):
  """[b T H W latent_dim] -> [b t h w 3]; mirrors Encoder."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, codes: Array) -> Array:
    c = self.cfg
    features = c.width * c.multipliers[-1]
    x = Conv(features, dtype=c.dtype, name="stem")(codes)
    x = nn.Sequential(stack(c, features, "middle"))(x)
    for level, multiplier in reversed(list(enumerate(c.multipliers))):
      features = c.width * multiplier
      x = AdaptiveNorm(name=f"level{level}_adapt")(x, codes)
      x = nn.Sequential(stack(c, features, f"level{level}"))(x)
      if level:
        st, sh, sw = size = c.strides[level - 1]
        wide = features * st * sh * sw
        x = upsample(
          Conv(wide, dtype=c.dtype, name=f"level{level}_up")(x), size
        )
    x = blocks.swish(ClipGroupNorm(name="norm"), x, c.remat)
    return Conv(3, dtype=c.dtype, name="head")(x).astype(jnp.float32)


class Backbone(nn.Module):
  """Open-MAGVIT2's video net.

  Attributes:
    latent_dim: channels of a latent, set by the quantizer; 18 is published.
    width: base number of channels.
    multipliers: channels per level over `width`.
    blocks: residual blocks per level, and again at the coarsest one, in the
      encoder and in the decoder.
    strides: (time, height, width) of each of the len(multipliers) - 1 steps
      between levels.
    remat: what the backward pass keeps, 'none' (all), 'dots' or 'full'; see
      nn/blocks.py.
    dtype: of the convolutions; the latents and the pixels are float32.
  """

  latent_dim: int
  width: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 4)
  blocks: int = 4
  strides: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  causal = False
  alone = True

  def __post_init__(self):
    super().__post_init__()
    check_levels("open_magvit2", self.multipliers, self.strides)
    messages.check_choice("open_magvit2: remat", self.remat, blocks.REMAT)

  def setup(self):
    self.encoder = Encoder(self.clone(parent=None))
    self.decoder = Decoder(self.clone(parent=None))

  @property
  def stride(self) -> Strides:
    """Pixels per token in time, height and width."""
    return total_stride((1, 1, 1), self.strides)

  def latent_shape(self, t: int, h: int, w: int) -> tuple[int, ...]:
    """(T, H, W, latent_dim) of a clip of t frames of h x w.

    Raises:
      ValueError: a size that the strides do not divide.
    """
    grid = causal_grid("open_magvit2", t, h, w, self.stride)
    return (*grid, self.latent_dim)

  def encode(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1] -> latents [b T H W d]."""
    self.latent_shape(*video.shape[1:4])
    return self.encoder(video)

  def decode(self, codes: Array) -> Array:
    """Codes [b T H W d] -> video [b t h w 3], not clipped."""
    return self.decoder(codes)


TINY = dict(
  latent_dim=4,
  width=8,
  multipliers=(1, 2),
  blocks=1,
  strides=((2, 2, 2),),
)
