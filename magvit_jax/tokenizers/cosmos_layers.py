"""Layers of Cosmos-Tokenizer's video nets, each (x, carry) -> (x, carry).

A 3x3x3 convolution is one in space and one in time after it; time is padded
with the first frame, space with zeros. Norms see one frame.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from magvit_jax.nn import blocks
from magvit_jax.nn.attention import attend
from magvit_jax.nn.conv import CausalConv, patches
from magvit_jax.nn.frame_attention import projections
from magvit_jax.nn.layer import Carry, Layer
from magvit_jax.nn.norm import FrameGroupNorm
from magvit_jax.nn.resample import (
  CausalAverage,
  average_pool,
  depth_to_space,
  nearest,
)
from magvit_jax.tokenizers.levels import Strides
from magvit_jax.types import Array

# A norm of all channels and positions of a frame together.
whole_norm = functools.partial(FrameGroupNorm, 1)
SPACE, TIME = (1, 3, 3), (3, 1, 1)
CUBE = (2, 2, 2)
PAIR = np.array([[1, 1], [1, -1]], np.float32)
# Sums and differences along time, height and width of the 8 pixels of a cube:
# symmetric, and 8 times its own inverse.
WAVES = np.kron(PAIR, np.kron(PAIR, PAIR))


def haar(x: Array, levels: int) -> Array:
  """Haar wavelets: [b t h w c] -> [b t/n h/n w/n n^3*c], n = 2^levels.

  Every level transforms all bands of the one before, each scaled so that the
  lowest is a mean; the last axis runs over (time, height, width, c), low before
  high.
  """
  for _ in range(levels):
    x = _mix(patches(x, CUBE), WAVES / 8)
  return x


def inverse_haar(x: Array, levels: int) -> Array:
  """[b T H W n^3*c] -> [b T*n H*n W*n c], n = 2^levels; undoes `haar`."""
  for _ in range(levels):
    x = depth_to_space(_mix(x, WAVES), CUBE)
  return x


def _mix(x: Array, waves: np.ndarray) -> Array:
  """[… 8*c] by an [8 8] matrix; exact, as these are pixels."""
  cubes = x.reshape(*x.shape[:-1], 8, -1)
  cubes = jnp.einsum("...pc,pq->...qc", cubes, waves, precision="highest")
  return cubes.reshape(x.shape)


def factorized(features: int, name: str, dtype: jnp.dtype) -> list[Layer]:
  """A convolution in space, then one in time."""
  return [
    CausalConv(features, SPACE, dtype=dtype, name=f"{name}_space"),
    CausalConv(
      features, TIME, pad="replicate", dtype=dtype, name=f"{name}_time"
    ),
  ]


class Block(nn.Module):
  """Norm, swish, factorized convolution, twice; a shortcut where widths differ.

  Attributes:
    features: channels out.
    remat: what the backward pass keeps, see nn/blocks.py.
    dtype: of the convolutions.
  """

  features: int
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    h, after = x, []
    carries = (None, None) if carry is None else carry
    for number, before in enumerate(carries, 1):
      norm = whole_norm(name=f"norm{number}")
      h = blocks.swish(norm, h, self.remat)
      space, time = factorized(self.features, f"conv{number}", self.dtype)
      h, new = time(space(h)[0], before)
      after.append(new)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
    return x + h, tuple(after)


class TimeAttention(nn.Module):
  """One head of attention along time at every position, added to x.

  A frame sees itself and the `window - 1` before it. The carry is (keys,
  values, whether they are there) of as many frames, [b window-1 h w c] and
  [b window-1], so that it has one size from the first chunk on.

  Attributes:
    window: frames.
    dtype: of the computation.
  """

  window: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    b, t, h, w, c = x.shape
    q, k, v = projections(x, whole_norm, self.dtype)
    there = jnp.ones((b, t), bool)
    known = (k, v, there)
    if carry is not None:
      known = tuple(
        jnp.concatenate([old, new], axis=1)
        for old, new in zip(carry, known, strict=True)
      )
    k, v, there = known
    back = jnp.arange(t)[:, None] + k.shape[1] - t - jnp.arange(k.shape[1])
    mask = there[:, None, None] & ((back >= 0) & (back < self.window))
    # Positions are what heads are elsewhere: each has a line of its own.
    q, k, v = (y.reshape(b, -1, h * w, c) for y in (q, k, v))
    y = attend(q, k, v, mask).reshape(x.shape)
    y = nn.Dense(c, dtype=self.dtype, name="project")(y)
    return x + y, tuple(last_frames(a, self.window - 1) for a in known)


def last_frames(x: Array, count: int) -> Array:
  """The last `count` of axis 1, zeros before them where there are fewer."""
  longer = lax.pad(
    x,
    jnp.zeros((), x.dtype),
    [(count if axis == 1 else 0, 0, 0) for axis in range(x.ndim)],
  )
  return longer[:, x.shape[1] :]


class Down(nn.Module):
  """Strided convolutions plus means of blocks, space first; then 1x1x1.

  Attributes:
    strides: (time, height, width), each 1 or 2; both of space are the same.
    dtype: of the convolutions.
  """

  strides: Strides
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    time, space, _ = self.strides
    c, dtype = x.shape[-1], self.dtype
    after = ()
    if space > 1:
      stride = (1, 2, 2)
      conv = CausalConv(c, SPACE, stride, dtype=dtype, name="space")
      x = conv(x)[0] + average_pool(x, stride)
    if time > 1:
      stride = (2, 1, 1)
      conv = CausalConv(c, TIME, stride, "replicate", dtype=dtype, name="time")
      mean, _ = CausalAverage(stride)(x, carry)
      x, after = conv(x, carry)
      x = x + mean
    return nn.Dense(c, dtype=dtype, name="mix")(x), after


class Up(nn.Module):
  """Repeats, each plus a convolution of itself, time first; then 1x1x1.

  The first frame of a clip is not repeated in time. Attributes as in Down.
  """

  strides: Strides
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    time, space, _ = self.strides
    c, dtype = x.shape[-1], self.dtype
    after = ()
    if time > 1:
      x = nearest(x, (2, 1, 1))
      x = x[:, 1:] if carry is None else x
      conv = CausalConv(c, TIME, pad="replicate", dtype=dtype, name="time")
      y, after = conv(x, carry)
      x = x + y
    if space > 1:
      x = nearest(x, (1, 2, 2))
      x = x + CausalConv(c, SPACE, dtype=dtype, name="space")(x)[0]
    return nn.Dense(c, dtype=dtype, name="mix")(x), after
