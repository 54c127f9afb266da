"""Additive quantization (Babenko and Lempitsky, CVPR 2014).

The code is a sum of one code from each of M full-width codebooks, chosen
together: a greedy pass as in `residual`, then sweeps that choose each book's
code again given those of all others (iterated conditional modes),

  q_m = Q_m(z - sum over j != m of q_j).

With quantizers that take the nearest code (vq …) no sweep makes the error
larger; 0 sweeps is residual quantization.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.quantizers import Base, Quantized, check_ids, nested
from magvit_jax.types import Array, Key, PyTree


class Quantizer(Base):
  """Additive quantizer.

  Its aux and stats are those of the last sweep, the aux averaged over the
  books. The gradient passes straight through once.

  Attributes:
    base: config of a quantizer with ids, or the quantizer.
    books: M, number of codebooks.
    sweeps: sweeps after the greedy pass.
  """

  base: Mapping[str, Any] | nn.Module
  books: int = 4
  sweeps: int = 2

  def __post_init__(self):
    super().__post_init__()
    nested.check_count("additive", "books", self.books)
    if self.sweeps < 0:
      raise ValueError(
        f"additive: sweeps is {self.sweeps}; it must be 0 or more"
      )
    nested.build_discrete("additive", self.base)

  def setup(self):
    self.levels = nested.copies(self.base, self.books, shared=False)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return nested.build(self.base).dim

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor; the factors of the first book come first."""
    return tuple(nested.build(self.base).sizes) * self.books

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key is for the base."""
    z = z.astype(jnp.float32)
    codes = [jnp.zeros_like(z)] * self.books
    outs = [None] * self.books
    for sweep in range(self.sweeps + 1):
      for m, level in enumerate(self.levels):
        others = sum(codes[:m] + codes[m + 1 :], jnp.zeros_like(z))
        target = z - jax.lax.stop_gradient(others)
        step = nested.subkey(key, sweep * self.books + m)
        code, outs[m] = nested.quantize(level, target, step)
        codes[m] = nested.steady(code)
    return Quantized(
      nested.ste_with_params(z, nested.sum_levels(codes, None)),
      jnp.concatenate([out.ids for out in outs], axis=-1),
      nested.mean_aux(outs),
      nested.join_stats("levels", outs, shared=False),
    )

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… f] -> codes [… d]; see check_ids for wrong ones."""
    ids = check_ids(ids, self.sizes)
    parts = jnp.split(ids, self.books, axis=-1)
    codes = [
      nested.steady(level.lookup(part))
      for level, part in zip(self.levels, parts, strict=True)
    ]
    return nested.sum_levels(codes, None)

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Params with each book's refreshed."""
    return nested.refresh(self.base, params, stats, key)


TINY = dict(base=dict(name="fsq", levels=(5, 3, 3)), books=2, sweeps=1)
