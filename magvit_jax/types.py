"""Aliases, and the legend of dimension letters used in shapes everywhere.

| letter | meaning                | letter | meaning                    |
|--------|------------------------|--------|----------------------------|
| b      | batch                  | T H W  | token (latent) grid        |
| t h w  | frames, lines, columns | d      | width of a latent or code  |
| c      | channels               | f      | factors (ids) per position |
| n      | tokens, flattened      | k      | kept tokens                |
"""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
Key = jax.Array  # a typed key from jax.random.key
PyTree = Any
Metrics = dict[str, Array]
Initializer = Callable[..., Array]


def seed_key(seed: int) -> Key:
  """The random key of a seed in [0, 2**63); each has one of its own.

  Raises:
    ValueError: another seed.
  """
  if not 0 <= seed < 2**63:
    raise ValueError(f"seed is {seed}; it must lie in [0, 2**63)")
  # JAX takes the lower 32 bits and drops the rest.
  key = jax.random.key(seed % 2**32)
  return jax.random.fold_in(key, seed // 2**32) if seed >= 2**32 else key


def known(size: Any) -> bool:
  """Whether a length is a number; exports are traced with symbols for some."""
  return isinstance(size, int)
