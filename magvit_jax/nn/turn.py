"""Queries and keys before attention: a norm per head and rotary positions.

`plain` says what it is; `apply` and `pullback` compute it and its gradients
where heads lie beside each other in the lanes of a TPU, for nn/flash.py.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from magvit_jax.nn import norm, rotary
from magvit_jax.types import Array

LANES = 128
EPS = 1e-6


class Turn(NamedTuple):
  """How queries and keys are normalised and turned.

  Attributes:
    query: float32 [d], the scale of queries minus one, as in norm.RMSNorm.
    key: float32 [d], that of keys.
    angles: float32 [n d/2], of nn/rotary.py.
  """

  query: Array
  key: Array
  angles: Array


def plain(q: Array, k: Array, turn: Turn) -> tuple[Array, Array]:
  """Normalises and turns queries and keys [b n heads d]."""
  q = rotary.rotate(norm.root_mean_square(q, turn.query, EPS), turn.angles)
  return q, rotary.rotate(norm.root_mean_square(k, turn.key, EPS), turn.angles)


def tables(turn: Turn, rows: int, d: int) -> tuple[Array, Array, Array]:
  """Scales [2 lanes], cosines and signed sines [rows lanes], all float32."""
  repeat = max(LANES, d) // d
  scale = 1.0 + jnp.stack([turn.query, turn.key])
  cos, sin = jnp.cos(turn.angles), jnp.sin(turn.angles)
  cos, sin = (jnp.concatenate(x, 1) for x in ((cos, cos), (-sin, sin)))
  beyond = ((0, rows - len(cos)), (0, 0))
  cos, sin = (jnp.pad(jnp.tile(x, (1, repeat)), beyond) for x in (cos, sin))
  return jnp.tile(scale, (1, repeat)), cos, sin


def apply(x: Array, scale: Array, cos: Array, sin: Array, d: int) -> Array:
  """`plain` for [rows lanes] of x, with rows of `tables`; of x's dtype."""
  y = _normalise(x, d)[0] * scale
  return (y * cos + _swap(y, d) * sin).astype(x.dtype)


def pullback(
  x: Array, scale: Array, cos: Array, sin: Array, d: int, grad: Array
) -> tuple[Array, Array]:
  """Gradients of `apply` for x [rows lanes] and the scale [1 lanes]."""
  y, inverse = _normalise(x, d)
  # Swapping halves is its own transpose.
  grad = grad * cos + _swap(grad * sin, d)
  slope = grad * scale
  back = inverse * (slope - y * _mean(slope * y, d))
  return back, jnp.sum(grad * y, axis=0, keepdims=True)


def heads(shape: tuple[int, int], d: int) -> Iterator[Array]:
  """bool [rows lanes] per head of a block: the lanes that are its own."""
  lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  for head in range(max(1, LANES // d)):
    yield (lane >= head * d) & (lane < (head + 1) * d)


def _normalise(x: Array, d: int) -> tuple[Array, Array]:
  """(x over its root mean square, one over that), float32."""
  x = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(_mean(x * x, d) + EPS)
  return x * inverse, inverse


def _mean(x: Array, d: int) -> Array:
  """The mean over each head, in all of its lanes."""
  total = jnp.zeros_like(x)
  for own in heads(x.shape, d):
    sums = jnp.sum(jnp.where(own, x, 0.0), axis=1, keepdims=True)
    total = jnp.where(own, sums, total)
  return total / d


def _swap(x: Array, d: int) -> Array:
  """Exchanges the halves of each head."""
  half, lanes = d // 2, x.shape[1]
  before = pltpu.roll(x, half, 1)
  if lanes == d:
    return before
  lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
  return jnp.where(lane % d < half, pltpu.roll(x, lanes - half, 1), before)
