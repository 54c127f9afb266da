"""Causal 3-D convolutional backbone of MAGVIT-v2 (arXiv 2310.05737, sec. 3.2).

Strided causal convolutions down, depth to space up with the first frames
dropped, norms that see one frame: frame 0 is coded alone, an image is a video
of one frame, and a video of any length passes in chunks with a carry.

The published net is `width=128, multipliers=(1, 2, 2, 4), blocks=4, middle=4,
adaptive=True` with 17x128x128 -> 5x16x16. Each change that the paper makes to
MAGVIT is an argument: `down` and `up`, the place of the temporal strides in
`strides`, `blocks` and `middle`, `adaptive`. `patch` folds blocks of pixels
into channels first, which makes a net cheap enough for two CPU cores.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import blocks
from magvit_jax.nn import norm as norms
from magvit_jax.nn.conv import CausalConv
from magvit_jax.nn.group_norm import AdaptiveNorm
from magvit_jax.nn.layer import Carry, Layer, chain
from magvit_jax.nn.resample import CausalAverage, CausalNearest, CausalUpsample
from magvit_jax.tokenizers.causal import CausalBackbone
from magvit_jax.tokenizers.levels import Strides, check_levels, total_stride
from magvit_jax.types import Array

DOWNS = ("conv", "average")
UPS = ("depth", "nearest")
REMAT = (*blocks.REMAT, "levels")


def check_kernel(kernel: Strides, strides: tuple[Strides, ...]) -> None:
  """ValueError where frames are joined by a net that sees one at a time."""
  joined = [s for s in strides if s[0] > 1]
  if kernel[0] == 1 and joined:
    raise ValueError(
      f"causal3d: kernel {kernel} sees one frame, and the strides {joined} "
      "join several; give them a temporal stride of 1 or use (3, 3, 3)"
    )


def stack(c: "Backbone", features: int, name: str, count: int) -> list[Layer]:
  """`count` blocks of one width."""
  remat = "full" if c.remat == "levels" else c.remat
  block = blocks.remat(blocks.find(c.block), remat)
  conv = dict(pad=c.pad, dtype=c.dtype, kernel=c.kernel, remat=remat)
  return [
    block(features, c.norm, name=f"{name}_block{i}", **conv)
    for i in range(count)
  ]


def whole(
  c: "Backbone", net: nn.Module, make: Callable[[], list[Layer]]
) -> list[Layer]:
  """The layers of a level, or one that keeps but its input for the gradient.

  Args:
    c: the fields.
    net: in which `make` makes its layers.
    make: makes them; called inside of jax.checkpoint if remat is 'levels'.
  """
  if c.remat != "levels":
    return make()

  def run(net, x, carry):
    return chain(make(), x, carry)

  policy = jax.checkpoint_policies.nothing_saveable
  return [functools.partial(nn.remat(run, policy=policy), net)]


def down(c: "Backbone", features: int, level: int) -> Layer:
  """From a level to the next coarser one."""
  stride = c.strides[level]
  if c.down == "average":
    return CausalAverage(stride)
  kernel = tuple(max(k, s) for k, s in zip(c.kernel, stride, strict=True))
  conv = dict(pad=c.pad, dtype=c.dtype, name=f"level{level}_down")
  return CausalConv(features, kernel, stride, **conv)


def up(c: "Backbone", features: int, level: int) -> Layer:
  """From a level to the next finer one."""
  kind = CausalUpsample if c.up == "depth" else CausalNearest
  conv = dict(kernel=c.kernel, pad=c.pad, dtype=c.dtype)
  return kind(features, c.strides[level - 1], name=f"level{level}_up", **conv)


def led(c: "Backbone", norm: AdaptiveNorm, codes: Array) -> Layer:
  """The norm as a layer: it remembers nothing, the codes of a chunk do."""

  def run(norm, x, codes):
    return norm(x, codes)

  if c.remat != "none":
    run = nn.remat(run, policy=blocks.MOMENTS)
  return lambda x, carry: (run(norm, x, codes), ())


class Encoder(nn.Module):
  """[b t h w 3] -> [b T H W latent_dim]; fields as Backbone."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, video: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    conv = dict(pad=c.pad, dtype=c.dtype)
    layers = [CausalConv(c.width, c.stem_kernel, c.patch, name="stem", **conv)]
    for level, multiplier in enumerate(c.multipliers):
      features = c.width * multiplier
      make = functools.partial(stack, c, features, f"level{level}", c.blocks)
      layers += whole(c, self, make)
      if level < len(c.strides):
        layers.append(down(c, features, level))
    layers += stack(c, features, "middle", c.middle)
    x, carry = chain(layers, video, carry)
    x = blocks.swish(norms.make(c.norm), x, c.head_remat)
    return nn.Dense(c.latent_dim, dtype=jnp.float32, name="head")(x), carry


class Decoder(nn.Module):
  """[b T H W latent_dim] -> [b t h w 3]; mirrors Encoder."""

  cfg: "Backbone"

  @nn.compact
  def __call__(self, codes: Array, carry: Carry) -> tuple[Array, Carry]:
    c = self.cfg
    conv = dict(pad=c.pad, dtype=c.dtype)
    widest = c.width * c.multipliers[-1]
    kernel = (1, 1, 1) if c.patched else c.kernel
    layers = [CausalConv(widest, kernel, name="stem", **conv)]
    layers += stack(c, widest, "middle", c.middle)
    frames = 1  # per latent frame
    for level, multiplier in reversed(list(enumerate(c.multipliers))):
      make = functools.partial(self.level, codes, level, frames)
      layers += whole(c, self, make)
      if level:
        layers.append(up(c, c.width * multiplier, level))
        frames *= c.strides[level - 1][0]
    carry, last = (None, None) if carry is None else carry
    x, carry = chain(layers, codes, carry)
    x = blocks.swish(norms.make(c.norm), x, c.head_remat)
    head = CausalUpsample(3, c.patch, kernel, name="head", **conv)
    x, last = head(x, last)
    return x.astype(jnp.float32), (carry, last)

  def level(self, codes: Array, level: int, frames: int) -> list[Layer]:
    """The layers of a level, with so many frames per latent one."""
    c = self.cfg
    layers = stack(c, c.width * c.multipliers[level], f"level{level}", c.blocks)
    if c.adaptive:
      norm = AdaptiveNorm(frames, name=f"level{level}_adapt")
      layers.insert(0, led(c, norm, codes))
    return layers


class Backbone(CausalBackbone):
  """MAGVIT-v2's causal 3-D CNN.

  Attributes:
    latent_dim: channels of a latent, set by the quantizer.
    width: base number of channels.
    multipliers: channels per level over `width`.
    blocks: blocks per level, in the encoder and in the decoder.
    middle: further blocks at the coarsest level, in either; the published net
      keeps those of MAGVIT, which has as many as `blocks`.
    strides: (time, height, width) of each of the len(multipliers) - 1 steps
      between levels; the published net halves time in the last two.
    down: 'conv', strided (published), or 'average' as MAGVIT has.
    up: 'depth' to space (published), or 'nearest' as MAGVIT has.
    adaptive: whether the decoder starts each level with a norm that the codes
      of the same frame scale and shift (published).
    kernel: (time, height, width) of the convolutions; (1, 3, 3) makes the net
      of images that a video net starts from.
    patch: block of pixels folded into channels by the first convolution and
      unfolded by the last; (1, 1, 1) for the published net.
    block: 'residual' (published) or 'mixer' (cheap); see nn/blocks.py.
    norm: 'frame_group' (published) or 'position' (the same in tiles).
    pad: what stands before the first frame, 'zero' or 'replicate'.
    remat: what the backward pass keeps, 'none' (all), 'dots' or 'full', see
      nn/blocks.py; 'levels' keeps the input of each level only, and computes
      its blocks twice more.
    dtype: of the convolutions; the latents and the pixels are float32.
  """

  latent_dim: int
  width: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 4)
  blocks: int = 4
  middle: int = 0
  strides: tuple[Strides, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
  down: str = "conv"
  up: str = "depth"
  adaptive: bool = False
  kernel: Strides = (3, 3, 3)
  patch: Strides = (1, 1, 1)
  block: str = "residual"
  norm: str = "frame_group"
  pad: str = "zero"
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    check_levels("causal3d", self.multipliers, self.strides)
    messages.check_choice("down", self.down, DOWNS)
    messages.check_choice("up", self.up, UPS)
    check_kernel(self.kernel, self.strides)
    blocks.find(self.block)
    messages.check_choice("causal3d: remat", self.remat, REMAT)

  def setup(self):
    self.encoder = Encoder(self.clone(parent=None))
    self.decoder = Decoder(self.clone(parent=None))

  @property
  def patched(self) -> bool:
    """Whether the stem folds blocks of pixels."""
    return self.patch != (1, 1, 1)

  @property
  def head_remat(self) -> str:
    """For the norm and swish before a head, which no block holds."""
    return "none" if self.remat == "none" else "dots"

  @property
  def stem_kernel(self) -> Strides:
    """Kernel of the first convolution: the patch if there is one."""
    return self.patch if self.patched else self.kernel

  @property
  def stride(self) -> Strides:
    """Pixels per token in time, height and width."""
    return total_stride(self.patch, self.strides)


TINY = dict(
  latent_dim=4,
  width=8,
  multipliers=(1, 2),
  blocks=1,
  strides=((2, 2, 2),),
)
