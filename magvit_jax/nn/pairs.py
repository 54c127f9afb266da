"""Frames in pairs: [b t/2 h w 2c] in place of [b t h w c], for TPUs.

A TPU's vectors and matrix units are 128 wide, and 64 channels leave half of
them empty: the memory holds zeros, and a convolution uses a quarter of the
unit. Two frames side by side in the channels fill both. A convolution of three
frames becomes one of three pairs, with a kernel of twice the channels of which
half are zeros: twice the products at four times the rate, equal mathematics.
"""

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.nn import target_platform
from magvit_jax.types import Array

LANES = 128


def pay(width: int, kernel: int, stride: int) -> bool:
  """Whether a level should hold its frames in pairs.

  Args:
    width: its channels.
    kernel: of its convolutions, in time.
    stride: in time, to the next coarser level, which has no pairs.
  """
  on_tpu = target_platform.current() == "tpu"
  return on_tpu and 2 * width <= LANES and kernel == 3 and stride == 2


def fold(x: Array) -> Array:
  """[b t h w c] -> [b t/2 h w 2c], the earlier frame first."""
  b, t, h, w, c = x.shape
  x = x.reshape(b, t // 2, 2, h, w, c).transpose(0, 1, 3, 4, 2, 5)
  return x.reshape(b, t // 2, h, w, 2 * c)


def unfold(x: Array) -> Array:
  """The inverse of `fold`."""
  b, t, h, w, c = x.shape
  x = x.reshape(b, t, h, w, 2, c // 2).transpose(0, 1, 4, 2, 3, 5)
  return x.reshape(b, 2 * t, h, w, c // 2)


def merge(x: Array) -> Array:
  """The mean frame of each pair, [b t h w 2c] -> [b t h w c]."""
  first, second = jnp.split(x, 2, axis=-1)
  return (first + second) * 0.5


def kernel_of_pairs(kernel: Array, paired: bool = True) -> Array:
  """The kernel over pairs that does what `kernel` does over frames.

  Args:
    kernel: [kt kh kw c o], kt odd, centred.
    paired: whether the input is in pairs; otherwise each of its frames stands
      for two that are equal, as after a repetition in time.

  Returns:
    [kt' kh kw 2c 2o], or [kt' kh kw c 2o].
  """
  reach = len(kernel) // 2
  pairs = -(-reach // 2)
  # Output frame `into` of a pair sees frame `out_of` of the pair `away`.
  away, out_of, into, tap = np.ogrid[
    -pairs : pairs + 1, 0:2, 0:2, 0 : len(kernel)
  ]
  table = (2 * away + out_of - into + reach == tap).astype(np.float32)
  if not paired:
    table = table.sum(1, keepdims=True)
  wide = jnp.einsum(
    "dijt,thwco->dhwicjo",
    table,
    kernel,
    precision=jax.lax.Precision.HIGHEST,
  )
  d, h, w, i, c, j, o = wide.shape
  return wide.reshape(d, h, w, i * c, j * o)
