"""Causal 3-D convolutional backbone of MAGVIT-v2 (arXiv 2310.05737, sec. 3.2).

Strided causal convolutions down, depth to space up with the first frames
dropped, norms that see one frame: frame 0 is coded alone, an image is a video
of one frame, and a video of any length passes in chunks with a carry.

The published encoder is `width=128, multipliers=(1, 2, 2, 4), blocks=4` with
17x128x128 -> 5x16x16. `patch` folds blocks of pixels into channels first, which
makes a net cheap enough for two CPU cores.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.nn import blocks
from magvit_jax.nn import norm as norms
from magvit_jax.nn.conv import CausalConv
from magvit_jax.nn.layer import Carry, chain
from magvit_jax.nn.resample import CausalUpsample
from magvit_jax.types import Array

Strides = tuple[int, int, int]


def total_stride(patch: Strides, strides: tuple[Strides, ...]) -> Strides:
  """Pixels per token in time, height and width."""
  total = patch
  for stride in strides:
    total = tuple(a * b for a, b in zip(total, stride, strict=True))
  return total


class Encoder(nn.Module):
  """[b t h w 3] -> [b T H W latent_dim]; fields as Backbone."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, video: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    conv = dict(pad=c.pad, dtype=c.dtype)
    block = blocks.find(c.block)
    kernel = c.stem_kernel
    layers = [CausalConv(c.width, kernel, c.patch, name="stem", **conv)]
    for level, multiplier in enumerate(c.multipliers):
      features = c.width * multiplier
      for i in range(c.blocks):
        name = f"level{level}_block{i}"
        layers.append(block(features, c.norm, name=name, **conv))
      if level < len(c.strides):
        stride = c.strides[level]
        down = tuple(max(3, s) for s in stride)
        name = f"level{level}_down"
        layers.append(CausalConv(features, down, stride, name=name, **conv))
    x, carry = chain(layers, video, carry)
    x = jax.nn.silu(norms.make(c.norm)(x))
    return nn.Dense(c.latent_dim, dtype=jnp.float32, name="head")(x), carry


class Decoder(nn.Module):
  """[b T H W latent_dim] -> [b t h w 3]; mirrors Encoder."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, codes: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    conv = dict(pad=c.pad, dtype=c.dtype)
    block = blocks.find(c.block)
    widest = c.width * c.multipliers[-1]
    kernel = (1, 1, 1) if c.patched else (3, 3, 3)
    layers = [CausalConv(widest, kernel, name="stem", **conv)]
    for level, multiplier in reversed(list(enumerate(c.multipliers))):
      features = c.width * multiplier
      for i in range(c.blocks):
        name = f"level{level}_block{i}"
        layers.append(block(features, c.norm, name=name, **conv))
      if level:
        name = f"level{level}_up"
        stride = c.strides[level - 1]
        layers.append(CausalUpsample(features, stride, name=name, **conv))
    carry, last = (None, None) if carry is None else carry
    x, carry = chain(layers, codes, carry)
    x = jax.nn.silu(norms.make(c.norm)(x))
    head = CausalUpsample(3, c.patch, kernel, name="head", **conv)
    x, last = head(x, last)
    return x.astype(jnp.float32), (carry, last)


class Backbone(nn.Module):
  """MAGVIT-v2's causal 3-D CNN.

  Attributes:
    latent_dim: channels of a latent, set by the quantizer.
    width: base number of channels.
    multipliers: channels per level over `width`.
    blocks: blocks per level, in the encoder and in the decoder.
    strides: (time, height, width) of each of the len(multipliers) - 1 steps
      between levels; the published net halves time in the last two.
    patch: block of pixels folded into channels by the first convolution and
      unfolded by the last; (1, 1, 1) for the published net.
    block: 'residual' (published) or 'mixer' (cheap); see nn/blocks.py.
    norm: 'frame_group' (published) or 'position' (the same in tiles).
    pad: what stands before the first frame, 'zero' or 'replicate'.
    dtype: of the convolutions; the latents and the pixels are float32.
  """

  latent_dim: int
  width: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 4)
  blocks: int = 4
  strides: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
  patch: Strides = (1, 1, 1)
  block: str = "residual"
  norm: str = "frame_group"
  pad: str = "zero"
  dtype: jnp.dtype = jnp.float32

  causal = True

  def __post_init__(self):
    super().__post_init__()
    if len(self.strides) != len(self.multipliers) - 1:
      raise ValueError(
        f"causal3d: {len(self.multipliers)} multipliers need "
        f"{len(self.multipliers) - 1} strides between their levels, and there "
        f"are {len(self.strides)}: {self.strides}"
      )
    blocks.find(self.block)

  def setup(self):
    self.encoder = Encoder(self.clone(parent=None))
    self.decoder = Decoder(self.clone(parent=None))

  @property
  def patched(self) -> bool:
    """Whether the stem folds blocks of pixels."""
    return self.patch != (1, 1, 1)

  @property
  def stem_kernel(self) -> Strides:
    """Kernel of the first convolution: the patch, or 3x3x3 without one."""
    return self.patch if self.patched else (3, 3, 3)

  @property
  def stride(self) -> Strides:
    """Pixels per token in time, height and width."""
    return total_stride(self.patch, self.strides)

  def latent_shape(self, t: int, h: int, w: int) -> tuple[int, ...]:
    """(T, H, W, latent_dim) of a clip of t frames of h x w.

    Raises:
      ValueError: a size that the strides do not divide.
    """
    st, sh, sw = self.stride
    if (t - 1) % st or t < 1:
      below = 1 + (t - 1) // st * st
      raise ValueError(
        f"causal3d: {t} frames do not fit a temporal stride of {st}: use "
        f"1 + k * {st}, such as {max(below, 1)} or {max(below, 1) + st}"
      )
    if h % sh or w % sw:
      raise ValueError(
        f"causal3d: a frame of {h}x{w} is not divisible by the spatial stride "
        f"{sh}x{sw}; crop or pad it to {-(-h // sh) * sh}x{-(-w // sw) * sw}"
      )
    return 1 + (t - 1) // st, h // sh, w // sw, self.latent_dim

  def encode(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1] -> latents [b T H W d]."""
    return self.encode_chunk(None, video)[1]

  def decode(self, codes: Array) -> Array:
    """Codes [b T H W d] -> video [b t h w 3], not clipped."""
    return self.decode_chunk(None, codes)[1]

  def encode_chunk(self, carry: Carry, video: Array) -> tuple[Carry, Array]:
    """The next chunk: 1+k*st frames if carry is None (a start), else k*st."""
    self.latent_shape(video.shape[1] + (carry is not None), *video.shape[2:4])
    latents, carry = self.encoder(video, carry)
    return carry, latents

  def decode_chunk(self, carry: Carry, codes: Array) -> tuple[Carry, Array]:
    """The next chunk of latent frames; the first one starts with frame 0."""
    video, carry = self.decoder(codes, carry)
    return carry, video


TINY = dict(
  latent_dim=4,
  width=8,
  multipliers=(1, 2),
  blocks=1,
  strides=((2, 2, 2),),
)
