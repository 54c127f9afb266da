"""MAGVIT's 3-D StyleGAN discriminator: one logit for a whole clip.

The residual discriminator of StyleGAN2 (1912.04958) with 3x3x3 convolutions,
without its norms, equalised rates and batch statistics (MAGVIT, 2212.05199,
appendix B). MAGVIT halves by average pools, MAGVIT-v2 by a 3-D blur pool.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import blocks, resample
from magvit_jax.nn.conv import Conv
from magvit_jax.tokenizers.levels import Strides
from magvit_jax.types import Array

INIT = nn.initializers.xavier_uniform()


def activate(x: Array) -> Array:
  """Leaky relu with the slope of StyleGAN."""
  return jax.nn.leaky_relu(x, 0.2)


class Block(nn.Module):
  """Halves the size: two convolutions beside a pooled shortcut."""

  features: int
  kernel: Strides
  strides: Strides
  pool: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = dict(kernel_init=INIT, dtype=self.dtype)
    pool = resample.POOLS[self.pool]
    h = activate(Conv(x.shape[-1], self.kernel, name="first", **conv)(x))
    h = pool(h, self.strides)
    h = activate(Conv(self.features, self.kernel, name="second", **conv)(h))
    skip = Conv(
      self.features, (1, 1, 1), use_bias=False, name="shortcut", **conv
    )
    return (skip(pool(x, self.strides)) + h) / math.sqrt(2)


class Net(nn.Module):
  """[b t h w 3] -> one logit [b 1] per clip; fields as Discriminator.

  The size of the clip is fixed by the parameters: the last feature map is
  flattened.
  """

  width: int
  multipliers: tuple[int, ...]
  pool: str
  remat: str
  kernel: Strides
  strides: Strides
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, video: Array) -> Array:
    conv = dict(kernel_init=INIT, dtype=self.dtype)
    block = blocks.remat(Block, self.remat)
    x = activate(Conv(self.width, self.kernel, name="stem", **conv)(video))
    for i, multiplier in enumerate(self.multipliers):
      x = block(
        features=self.width * multiplier,
        kernel=self.kernel,
        strides=self.strides,
        pool=self.pool,
        dtype=self.dtype,
        name=f"block{i}",
      )(x)
    features = x.shape[-1]
    x = activate(Conv(features, self.kernel, name="last", **conv)(x))
    x = x.reshape(len(x), -1)
    x = nn.Dense(features, name="flat", **conv)(x)
    x = activate(x).astype(jnp.float32)
    return nn.Dense(1, kernel_init=INIT, name="head")(x)


class Discriminator(nn.Module):
  """A StyleGAN discriminator of clips.

  Attributes:
    width: channels of the first layer, 64 (B) or 128 (L).
    multipliers: channels of each block over `width`; each block halves time,
      height and width. (2, 4, 4, 4, 4) for 128 pixels, (2, 4, 4, 4) for 64.
    pool: 'average' (MAGVIT) or 'blur' (MAGVIT-v2).
    remat: 'full' keeps the input of each block only for the backward passes,
      of which R1 has two; 'none' and 'dots' keep all.
    dtype: of the convolutions; the logits are float32.
  """

  width: int = 64
  multipliers: tuple[int, ...] = (2, 4, 4, 4, 4)
  pool: str = "average"
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    messages.check_choice("stylegan: pool", self.pool, resample.POOLS)
    messages.check_choice("stylegan: remat", self.remat, blocks.REMAT)

  @nn.compact
  def __call__(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1], of one size -> logits [b 1]."""
    return self.net((3, 3, 3), (2, 2, 2))(video)

  def net(self, kernel: Strides, strides: Strides) -> Net:
    """The net of these fields, with its kernels and the strides of blocks."""
    return Net(
      width=self.width,
      multipliers=self.multipliers,
      pool=self.pool,
      remat=self.remat,
      kernel=kernel,
      strides=strides,
      dtype=self.dtype,
      name="net",
    )


TINY = dict(width=8, multipliers=(1, 2))
