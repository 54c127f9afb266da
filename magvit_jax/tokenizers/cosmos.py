"""Discrete video tokenizers of Cosmos (NVIDIA, arXiv 2501.03575, section 4).

Three levels of factorized causal convolutions on Haar wavelets of the pixels,
with attention in space and in time at the coarsest level; FSQ of levels
(8, 8, 8, 5, 5, 5) follows. Read from github.com/NVIDIA/Cosmos-Tokenizer,
cosmos_tokenizer/modules/layers3d.py;
convert/tokenizers/cosmos.py reads its weights.

One thing differs. The published attention in time sees all earlier frames of a
clip, whose memory grows without end; here it sees the last `window` latent
frames. A clip of at most `window` of them is coded as published: 16 cover the
longest clips that its users are told to give, 121 frames at a stride of 8 (the
121 from memory).

  published     downs                       ups
  DV 4x8x8      ((1, 2, 2), (1, 1, 1))      ((1, 2, 2), (1, 1, 1))
  DV 8x8x8      ((2, 2, 2), (1, 1, 1))      ((1, 1, 1), (2, 2, 2))
  DV 8x16x16    ((2, 2, 2), (1, 2, 2))      ((1, 2, 2), (2, 2, 2))
"""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import blocks
from magvit_jax.nn.conv import CausalConv
from magvit_jax.nn.frame_attention import FrameAttention
from magvit_jax.nn.layer import Carry, Layer, chain
from magvit_jax.tokenizers.causal import CausalBackbone
from magvit_jax.tokenizers.cosmos_layers import (
  SPACE,
  TIME,
  Block,
  Down,
  TimeAttention,
  Up,
  factorized,
  haar,
  inverse_haar,
  whole_norm,
)
from magvit_jax.tokenizers.levels import Strides, check_mirror, total_stride
from magvit_jax.types import Array

STILL = (1, 1, 1)
STEPS = (STILL, (2, 1, 1), (1, 2, 2), (2, 2, 2))


class Encoder(nn.Module):
  """[b t h w 3] -> [b T H W latent_dim]; fields as Backbone."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, video: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    if carry is None:
      first = jnp.repeat(video[:, :1], c.patch - 1, axis=1)
      video = jnp.concatenate([first, video], axis=1)
    x = haar(video.astype(jnp.float32), c.waves)
    layers = factorized(c.width, "stem", c.dtype)
    for level, step in enumerate((*c.downs, STILL)):
      layers += stack(c, level, c.blocks)
      if step != STILL:
        layers.append(Down(step, c.dtype, name=f"level{level}_down"))
    layers += [*middle(c), swish(c), *factorized(c.neck, "last", c.dtype)]
    x, carry = chain(layers, x, carry)
    return nn.Dense(c.latent_dim, dtype=jnp.float32, name="head")(x), carry


class Decoder(nn.Module):
  """[b T H W latent_dim] -> [b t h w 3]; mirrors Encoder."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, codes: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    start = carry is None
    x = nn.Dense(c.neck, dtype=c.dtype, name="neck")(codes)
    layers = [*factorized(c.widest, "stem", c.dtype), *middle(c)]
    for level, step in zip(c.levels[::-1], (*c.ups, STILL), strict=True):
      layers += stack(c, level, c.blocks + 1)
      if step != STILL:
        layers.append(Up(step, c.dtype, name=f"level{level}_up"))
    bands = 3 * c.patch**3
    space = CausalConv(bands, SPACE, dtype=c.dtype, name="last")
    head = CausalConv(bands, TIME, pad="replicate", dtype=c.dtype, name="head")
    x, carry = chain([*layers, swish(c), space, head], x, carry)
    video = inverse_haar(x.astype(jnp.float32), c.waves)
    return (video[:, c.patch - 1 :] if start else video), carry


def stack(c: "Backbone", level: int, count: int) -> list[Layer]:
  """The blocks of a level."""
  block = blocks.remat(Block, c.remat)
  features = c.width * c.multipliers[level]
  return [
    block(features, c.remat, c.dtype, name=f"level{level}_block{i}")
    for i in range(count)
  ]


def middle(c: "Backbone") -> list[Layer]:
  """Block, attention in space and in time, block."""
  block = blocks.remat(Block, c.remat)
  return [
    block(c.widest, c.remat, c.dtype, name="middle_block0"),
    FrameAttention(whole_norm, c.dtype, name="middle_space"),
    TimeAttention(c.window, c.dtype, name="middle_time"),
    block(c.widest, c.remat, c.dtype, name="middle_block1"),
  ]


def swish(c: "Backbone") -> Layer:
  """Swish of the last norm of a net, as a layer."""
  norm = whole_norm(name="norm")
  return lambda x, carry: (blocks.swish(norm, x, c.remat), ())


class Backbone(CausalBackbone):
  """Cosmos' causal video net; the defaults are DV 8x16x16.

  Attributes:
    latent_dim: channels of a latent, set by the quantizer (published: 6).
    width: base number of channels.
    multipliers: channels per level over `width`.
    blocks: blocks per level of the encoder; the decoder has one more.
    patch: side of the cubes of pixels that Haar wavelets turn into channels, a
      power of 2.
    downs: (time, height, width) of each step between levels of the encoder,
      the finest first; (1, 1, 1) is no step at all.
    ups: the same of the decoder, the coarsest first.
    neck: channels of the nets next to the latents.
    window: latent frames that attention in time sees.
    remat: what the backward pass keeps, 'none' (all), 'dots' or 'full'; see
      nn/blocks.py.
    dtype: of the convolutions; the latents and the pixels are float32.
  """

  latent_dim: int
  width: int = 128
  multipliers: tuple[int, ...] = (2, 4, 4)
  blocks: int = 2
  patch: int = 4
  downs: tuple[Strides, ...] = ((2, 2, 2), (1, 2, 2))
  ups: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2))
  neck: int = 16
  window: int = 16
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    check_mirror("cosmos", self.multipliers, self.downs, self.ups, STEPS)
    if self.patch < 1 or self.patch & (self.patch - 1):
      raise ValueError(
        f"cosmos: patch is {self.patch}; it must be a power of 2"
      )
    if self.window < 1:
      raise ValueError(
        f"cosmos: window is {self.window}; a frame sees at least itself, 1"
      )
    messages.check_choice("cosmos: remat", self.remat, blocks.REMAT)

  def setup(self):
    self.encoder = Encoder(self.clone(parent=None))
    self.decoder = Decoder(self.clone(parent=None))

  @property
  def levels(self) -> tuple[int, ...]:
    """Numbers of the levels, the finest first."""
    return tuple(range(len(self.multipliers)))

  @property
  def widest(self) -> int:
    """Channels at the coarsest level."""
    return self.width * self.multipliers[-1]

  @property
  def waves(self) -> int:
    """How often pixels are halved by wavelets."""
    return self.patch.bit_length() - 1

  @property
  def stride(self) -> Strides:
    """Pixels per token in time, height and width."""
    return total_stride((self.patch,) * 3, self.downs)


TINY = dict(
  latent_dim=4,
  width=8,
  multipliers=(1, 2),
  blocks=0,
  patch=2,
  downs=((2, 2, 2),),
  ups=((2, 2, 2),),
  neck=4,
  window=3,
)
