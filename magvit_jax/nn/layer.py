"""Layers with memory: (x, carry) -> (x, carry), the signature of nn.scan.

A carry is what a layer remembers of the frames before a chunk. `None` (static)
starts a clip; `()` is the carry of a layer without memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

from magvit_jax.types import Array

Carry = Any
Layer = Callable[[Array, Carry], tuple[Array, Carry]]


def chain(
  layers: Sequence[Layer], x: Array, carry: Carry
) -> tuple[Array, Carry]:
  """Applies layers in order; their carries travel as one tuple."""
  carries = (None,) * len(layers) if carry is None else carry
  after = []
  for layer, before in zip(layers, carries, strict=True):
    x, new = layer(x, before)
    after.append(new)
  return x, tuple(after)
