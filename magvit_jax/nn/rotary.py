"""Rotary positions (arXiv 2104.09864) over three axes: time, height, width.

Each axis turns its own share of the pairs of a head, so that the product of a
query and a key depends on their distance along each axis and on nothing else.
"""

import jax.numpy as jnp
import numpy as np

from magvit_jax.types import Array


def frequencies(head: int, base: float) -> np.ndarray:
  """Radians per step, float32 [3, head / 2]; zero for the other axes' pairs.

  Height and width get a third of the pairs each, time the rest.

  Raises:
    ValueError: `head` is odd or below 6, or `base` is not above 1.
  """
  if head % 2 or head < 6:
    raise ValueError(
      f"rotary: a head has {head} channels; 3-D positions need an even number "
      "of at least 6: change width or heads"
    )
  if base <= 1:
    raise ValueError(f"rotary: base is {base}; it must be above 1")
  pairs = head // 2
  space = pairs // 3
  table = np.zeros((3, pairs), np.float32)
  start = 0
  for axis, count in enumerate((pairs - 2 * space, space, space)):
    table[axis, start : start + count] = base ** -(np.arange(count) / count)
    start += count
  return table


def angles(positions: Array, head: int, base: float = 100.0) -> Array:
  """int32 [n 3] -> float32 [n, head / 2], the angle of each pair.

  The slowest pair turns by about 1/base a step: 100 suits axes of up to a few
  hundred tokens, where the 10000 of text would leave most pairs unturned.
  """
  return positions.astype(jnp.float32) @ frequencies(head, base)


def rotate(x: Array, angles: Array) -> Array:
  """Turns the pairs (i, i + d/2) of [b n heads d] by angles [n, d/2]."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
  turned = (first * cos - second * sin, first * sin + second * cos)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)
