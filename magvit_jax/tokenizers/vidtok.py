"""Causal video tokenizers of VidTok (Microsoft, arXiv 2412.13061), version 1.0.

Blocks of 2-D convolutions, each followed by one along time; means and nearest
frames blended with 3-D convolutions where time is halved and doubled; layer
norms of each position. Read from github.com/microsoft/VidTok,
vidtok/modules/model_3dcausal.py;
convert/tokenizers/vidtok.py reads its weights.

The first frame of a clip is repeated until it fills a latent frame of its own,
and zeros stand before that, so 1+k*st frames become 1+k and no latent depends
on a later one.

  published            multipliers      downs and ups
  FSQ causal 4x8x8     (1, 2, 4, 4)     ((1, 2, 2), (2, 2, 2), (2, 2, 2))
  FSQ causal 4x16x16   (1, 2, 4, 4, 4)  ((1, 2, 2), (1, 2, 2), (2, 2, 2) twice)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import blocks
from magvit_jax.nn.conv import CausalConv
from magvit_jax.nn.frame_attention import FrameAttention
from magvit_jax.nn.layer import Carry, Layer, chain
from magvit_jax.nn.norm import PositionNorm
from magvit_jax.nn.resample import CausalNearest, nearest
from magvit_jax.tokenizers.causal import CausalBackbone
from magvit_jax.tokenizers.levels import Strides, check_mirror, total_stride
from magvit_jax.types import Array

SPACE, TIME = (1, 3, 3), (3, 1, 1)
STEPS = ((1, 2, 2), (2, 2, 2))


class HalfTime(nn.Module):
  """2n frames -> n: means of three blended with a strided convolution.

  Frame j of the result sees frames 2j-1 to 2j+1; the carry is the last frame,
  zeros at the start. `bias` is the logit of the share of the means.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    share = self.param("bias", nn.initializers.constant(2.0), (1,))
    carry = jnp.zeros_like(x[:, :1]) if carry is None else carry
    seen = jnp.concatenate([carry, x], axis=1)
    mean = (seen[:, :-1:2] + seen[:, 1::2] + seen[:, 2::2]) / 3
    conv = CausalConv(
      x.shape[-1], strides=(2, 1, 1), dtype=self.dtype, name="conv"
    )
    y, carry = conv(x, carry)
    return blend(mean, y, share), carry


class DoubleTime(nn.Module):
  """n frames -> 2n: every frame twice, blended with a convolution of that."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    share = self.param("bias", nn.initializers.constant(2.0), (1,))
    x = nearest(x, (2, 1, 1))
    conv = CausalConv(x.shape[-1], dtype=self.dtype, name="conv")
    y, carry = conv(x, carry)
    return blend(x, y, share), carry


def blend(a: Array, b: Array, logit: Array) -> Array:
  """sigmoid(logit) of a and the rest of b, of the dtype of b."""
  share = jax.nn.sigmoid(logit).astype(b.dtype)
  return share * a + (1 - share) * b


def stack(c: "Backbone", level: int, count: int) -> list[Layer]:
  """The blocks of a level, each a pair of one in space and one in time."""
  return [
    block(c, c.width * c.multipliers[level], kernel, f"level{level}_{name}{i}")
    for i in range(count)
    for name, kernel in (("space", SPACE), ("time", TIME))
  ]


def block(c: "Backbone", features: int, kernel: Strides, name: str) -> Layer:
  """A residual block of a kernel."""
  kind = blocks.remat(blocks.Residual, c.remat)
  return kind(
    features,
    "position",
    dtype=c.dtype,
    kernel=kernel,
    remat=c.remat,
    name=name,
  )


def middle(c: "Backbone") -> list[Layer]:
  """Block, attention in space, block."""
  features = c.width * c.multipliers[-1]
  return [
    block(c, features, (3, 3, 3), "middle_block0"),
    FrameAttention(PositionNorm, c.dtype, name="middle_attention"),
    block(c, features, (3, 3, 3), "middle_block1"),
  ]


def swish(c: "Backbone") -> Layer:
  """Swish of the last norm of a net, as a layer."""
  norm = PositionNorm(name="norm")
  return lambda x, carry: (blocks.swish(norm, x, c.remat), ())


class Encoder(nn.Module):
  """[b t h w 3] -> [b T H W latent_dim]; fields as Backbone."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, video: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    if carry is None:
      first = jnp.repeat(video[:, :1], c.stride[0] - 1, axis=1)
      video = jnp.concatenate([first, video], axis=1)
    layers = [CausalConv(c.width, dtype=c.dtype, name="stem")]
    for level, multiplier in enumerate(c.multipliers):
      layers += stack(c, level, c.blocks)
      if level < len(c.downs):
        name, features = f"level{level}_down", c.width * multiplier
        conv = CausalConv(features, SPACE, (1, 2, 2), dtype=c.dtype, name=name)
        layers.append(conv)
        if c.downs[level][0] > 1:
          layers.append(HalfTime(c.dtype, name=f"{name}_time"))
    head = CausalConv(c.latent_dim, dtype=jnp.float32, name="head")
    return chain([*layers, *middle(c), swish(c), head], video, carry)


class Decoder(nn.Module):
  """[b T H W latent_dim] -> [b t h w 3]; mirrors Encoder."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, codes: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    start = carry is None
    widest = c.width * c.multipliers[-1]
    layers = [CausalConv(widest, dtype=c.dtype, name="stem"), *middle(c)]
    levels = list(enumerate(c.multipliers))[::-1]
    for (level, multiplier), step in zip(levels, (*c.ups, None), strict=True):
      layers += stack(c, level, c.blocks + 1)
      if step:
        name, features = f"level{level}_up", c.width * multiplier
        up = CausalNearest(features, (1, 2, 2), SPACE, dtype=c.dtype, name=name)
        layers.append(up)
        if step[0] > 1:
          layers.append(DoubleTime(c.dtype, name=f"{name}_time"))
    head = CausalConv(3, dtype=c.dtype, name="head")
    video, carry = chain([*layers, swish(c), head], codes, carry)
    video = video.astype(jnp.float32)
    return (video[:, c.stride[0] - 1 :] if start else video), carry


class Backbone(CausalBackbone):
  """VidTok's causal net; the defaults are those of 4x8x8.

  Attributes:
    latent_dim: channels of a latent, set by the quantizer; published are 4, 5
      and 6, of 8 levels each.
    width: base number of channels.
    multipliers: channels per level over `width`.
    blocks: pairs of blocks per level of the encoder; the decoder has one more.
    downs: (time, height, width) of each step between levels of the encoder, the
      finest first; every step halves space.
    ups: the same of the decoder, the coarsest first.
    remat: what the backward pass keeps, 'none' (all), 'dots' or 'full'; see
      nn/blocks.py.
    dtype: of the convolutions; the latents and the pixels are float32.
  """

  latent_dim: int
  width: int = 128
  multipliers: tuple[int, ...] = (1, 2, 4, 4)
  blocks: int = 2
  downs: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
  ups: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    check_mirror("vidtok", self.multipliers, self.downs, self.ups, STEPS)
    messages.check_choice("vidtok: remat", self.remat, blocks.REMAT)

  def setup(self):
    self.encoder = Encoder(self.clone(parent=None))
    self.decoder = Decoder(self.clone(parent=None))

  @property
  def stride(self) -> Strides:
    """Pixels per token in time, height and width."""
    return total_stride((1, 1, 1), self.downs)


TINY = dict(
  latent_dim=4,
  width=8,
  multipliers=(1, 2),
  blocks=0,
  downs=((2, 2, 2),),
  ups=((2, 2, 2),),
)
