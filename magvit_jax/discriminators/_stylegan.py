"""The net of the StyleGAN discriminators, of clips or of frames.

The residual discriminator of StyleGAN2 (1912.04958) without its norms,
equalised rates and batch statistics, as in MAGVIT (2212.05199, appendix B).
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
  """[b t h w 3] -> one logit [b 1] per clip.

  The size of the clip is fixed by the parameters: the last feature map is
  flattened.

  Attributes:
    width: channels of the first layer.
    multipliers: channels of each block over `width`.
    pool: a key of resample.POOLS.
    remat: see nn/blocks.py.
    kernel: of the convolutions, (time, height, width).
    strides: of each block.
    dtype: of the convolutions; the logits are float32.
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


def check(pool: str, remat: str) -> None:
  """ValueError for a pool or a remat policy that does not exist."""
  messages.check_choice("stylegan: pool", pool, resample.POOLS)
  messages.check_choice("stylegan: remat", remat, blocks.REMAT)
