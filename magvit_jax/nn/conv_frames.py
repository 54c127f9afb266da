"""3-D convolutions on CPU, as 2-D ones of frames.

XLA on CPU has a fast kernel (YNNPACK) for convolutions of two dimensions and
none for three; nn/conv.py chooses, benchmarks/tokenizer_cpu.py measures.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from magvit_jax.types import Array, known

FEW = 16  # channels in, up to which one wide 2-D convolution beats several


def convolve(
  x: Array,
  kernel: Array,
  strides: tuple[int, int, int],
  rows: tuple[int, int],
  columns: tuple[int, int],
) -> Array:
  """Convolves [b t h w c] with [kt kh kw c o]; see nn/conv.py: conv3d.

  The taps in time are 2-D convolutions that are summed. Where the channels are
  few, they are put side by side as channels of one convolution: a kernel over
  three channels leaves the machine idle.
  """

  def frames(x, kernel):
    y = lax.conv_general_dilated(
      x.reshape(-1, *x.shape[2:]),
      kernel,
      strides[1:],
      (rows, columns),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])

  taps, stride = kernel.shape[0], strides[0]
  few = x.shape[-1] <= FEW
  if taps == 3 and stride == 1 and not few:
    return winograd(x, kernel, frames)
  last = (x.shape[1] - taps) // stride * stride
  shifted = [x[:, i : i + last + 1 : stride] for i in range(taps)]
  if few:
    shifted = [jnp.concatenate(shifted, axis=-1)]
    kernel = jnp.concatenate(list(kernel), axis=-2)[None]
  return sum(map(frames, shifted, kernel))


def winograd(
  x: Array, kernel: Array, frames: Callable[[Array, Array], Array]
) -> Array:
  """Three taps in time by four products for two frames, in place of six.

  F(2, 3) over frames (Lavin and Gray, 1509.09308, section 4.1). Frame j of the
  result adds up frames j to j+2 of x only, so that causality is exact and not
  merely a cancelling of sums; the last of an odd number takes three products.

  Args:
    x: [b t+2 h w c].
    kernel: [3 kh kw c o].
    frames: the 2-D convolution of each frame.
  """
  if not known(x.shape[1] % 2):
    return winograd(_even(x), kernel, frames)[:, : x.shape[1] - 2]
  first, middle, last = kernel
  half = (x.shape[1] - 1) // 2  # pairs, counting a last single frame
  whole = x.shape[1] // 2 - 1  # pairs without it
  even, odd = x[:, ::2], x[:, 1::2]
  left, right, between = even[:, :half], even[:, 1:], odd[:, :half]
  a = frames(left - right, first)
  b = frames(between + right, (first + middle + last) / 2)
  c = frames(right - between, (first - middle + last) / 2)
  d = frames(odd[:, :whole] - odd[:, 1 : whole + 1], last)
  one, two = a + b + c, b[:, :whole] - c[:, :whole] - d
  y = jnp.stack([one[:, :whole], two], axis=2)
  y = y.reshape(y.shape[0], 2 * whole, *y.shape[3:])
  return jnp.concatenate([y, one[:, whole:]], axis=1)


def _even(x: Array) -> Array:
  """x with one frame more if their number, which is a symbol, is odd."""
  longer = jnp.concatenate([x, x[:, -1:]], axis=1)
  return longer[:, : 2 + (x.shape[1] - 1) // 2 * 2]
