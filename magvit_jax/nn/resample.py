"""Fewer and more frames and pixels: pools, nearest, depth to space.

A pool of stride s turns n frames or pixels into ceil(n/s), as TensorFlow's
"SAME" does. The causal layers turn 1+n*s frames into 1+n and back, the first
one standing for itself alone.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from magvit_jax.nn import target_platform
from magvit_jax.nn.conv import CausalConv
from magvit_jax.nn.layer import Carry
from magvit_jax.types import Array

BLUR = np.array([1.0, 3.0, 3.0, 1.0]) / 8


def depth_to_space(x: Array, size: tuple[int, int, int]) -> Array:
  """[b T H W pt*ph*pw*c] -> [b T*pt H*ph W*pw c], the inverse of patches."""
  b, t, h, w, d = x.shape
  pt, ph, pw = size
  c = d // (pt * ph * pw)
  x = x.reshape(b, t, h, w, pt, ph, pw, c).transpose(0, 1, 4, 2, 5, 3, 6, 7)
  return x.reshape(b, t * pt, h * ph, w * pw, c)


def average_pool(x: Array, size: tuple[int, int, int]) -> Array:
  """Means of [b t h w c] over blocks; a block that is cut counts what it has.

  Zeros that fill up the last block would darken the edge of a clip whose size
  is odd, such as the one frame that is left of 16 after four halvings.
  """
  counts = np.ones((1, 1, 1, 1), np.float32)
  for axis, (n, s) in enumerate(zip(x.shape[1:4], size, strict=True)):
    if n % s == 0:
      counts = counts * np.float32(s)
      continue
    low = (-n % s) // 2
    edges = np.clip(np.arange(-(-n // s) + 1) * s - low, 0, n)
    sizes = np.diff(edges).astype(np.float32)
    counts = counts * sizes.reshape([-1 if i == axis else 1 for i in range(4)])
  window = (1, *size, 1)
  zero = np.zeros((), x.dtype)
  total = lax.reduce_window(x, zero, lax.add, window, window, "SAME")
  return total * jnp.asarray(1.0 / counts, x.dtype)


def blur_pool(x: Array, strides: tuple[int, int, int]) -> Array:
  """Every second sample of [b t h w c] blurred by (1, 3, 3, 1) / 8.

  Zhang (1904.11486), with zeros around; axes of stride 1 are left alone. On a
  TPU it is one grouped convolution, which reads x once; elsewhere shifted sums
  along one axis after the other, because XLA on CPU is slow at those.
  """
  pads = [_blurred(n, s) for n, s in zip(x.shape[1:4], strides, strict=True)]
  if target_platform.current() == "tpu":
    lines = [BLUR if s > 1 else np.ones(1) for s in strides]
    cube = functools.reduce(np.multiply.outer, lines)[..., None, None]
    return lax.conv_general_dilated(
      x,
      jnp.asarray(np.repeat(cube, x.shape[-1], axis=-1), x.dtype),
      strides,
      pads,
      dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
      feature_group_count=x.shape[-1],
    )
  for axis, (stride, pad) in enumerate(zip(strides, pads, strict=True), 1):
    if stride > 1:
      padded = jnp.pad(x, [pad if i == axis else (0, 0) for i in range(5)])
      end = padded.shape[axis] - len(BLUR) + 1
      x = sum(
        weight * lax.slice_in_dim(padded, i, i + end, stride, axis)
        for i, weight in enumerate(BLUR.tolist())
      )
  return x


def _blurred(n: int, stride: int) -> tuple[int, int]:
  """Zeros around an axis of n samples that is blurred, or left alone."""
  return (1, (n - 1) // stride * stride + 3 - n) if stride > 1 else (0, 0)


POOLS = {"average": average_pool, "blur": blur_pool}


def nearest(x: Array, size: tuple[int, int, int]) -> Array:
  """Repeats every sample of [b t h w c], along all axes at once."""
  b, t, h, w, c = x.shape
  pt, ph, pw = size
  x = jnp.broadcast_to(
    x[:, :, None, :, None, :, None], (b, t, pt, h, ph, w, pw, c)
  )
  return x.reshape(b, t * pt, h * ph, w * pw, c)


class CausalAverage(nn.Module):
  """Means over blocks; those of the first frame are in space alone."""

  strides: tuple[int, int, int]

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    if carry is None:
      first = jnp.repeat(x[:, :1], self.strides[0] - 1, axis=1)
      x = jnp.concatenate([first, x], axis=1)
    return average_pool(x, self.strides), ()


class CausalNearest(nn.Module):
  """Repeats every sample, the first frame in space alone, then convolves."""

  features: int
  strides: tuple[int, int, int]
  kernel: tuple[int, int, int] = (3, 3, 3)
  pad: str = "zero"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    x = nearest(x, self.strides)
    x = x[:, self.strides[0] - 1 :] if carry is None else x
    return CausalConv(
      self.features,
      kernel=self.kernel,
      pad=self.pad,
      dtype=self.dtype,
      name="conv",
    )(x, carry)


class CausalUpsample(nn.Module):
  """Convolution to more channels, then depth to space.

  The first frame of a clip stands for itself alone, so of its copies in time
  all but the last are dropped: 1+n frames become 1+n*s (MAGVIT-v2).
  """

  features: int
  strides: tuple[int, int, int]
  kernel: tuple[int, int, int] = (3, 3, 3)
  pad: str = "zero"
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    st, sh, sw = self.strides
    start = carry is None
    x, carry = CausalConv(
      self.features * st * sh * sw,
      kernel=self.kernel,
      pad=self.pad,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name="conv",
    )(x, carry)
    x = depth_to_space(x, self.strides)
    return (x[:, st - 1 :] if start else x), carry
