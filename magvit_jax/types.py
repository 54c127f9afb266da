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


def known(size: Any) -> bool:
  """Whether a length is a number; exports are traced with symbols for some."""
  return isinstance(size, int)
