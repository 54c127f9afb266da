"""Embeddings of factorised ids, and the heads tied to them."""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.types import Array

INIT = nn.initializers.normal(0.02)


class FactorisedEmbed(nn.Module):
  """One table per factor; a position is the sum over its factors.

  Row `sizes[i]` of table i, the last, stands for MASK: an explicit id beyond
  the ids of the tokenizer, which no head can predict.

  Attributes:
    sizes: number of ids per factor.
    width: channels of an embedding.
    dtype: of embeddings and of the heads' products.
  """

  sizes: tuple[int, ...]
  width: int
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.tables = [
      self.param(f"table_{i}", INIT, (size + 1, self.width))
      for i, size in enumerate(self.sizes)
    ]
    self.biases = [
      self.param(f"bias_{i}", nn.initializers.zeros, (size,))
      for i, size in enumerate(self.sizes)
    ]

  def __call__(self, ids: Array) -> Array:
    """int32 ids [… f] -> [… d]; an id beyond MASK gives NaN."""
    return sum(
      lookup(table, ids[..., i], self.dtype)
      for i, table in enumerate(self.tables)
    )

  def heads(self, x: Array) -> tuple[Array, ...]:
    """[… d] -> float32 logits [… size] per factor, without MASK."""
    return tuple(
      jnp.einsum(
        "...d,kd->...k",
        x.astype(self.dtype),
        table[:-1].astype(self.dtype),
        preferred_element_type=jnp.float32,
      )
      + bias
      for table, bias in zip(self.tables, self.biases, strict=True)
    )


def lookup(table: Array, ids: Array, dtype: jnp.dtype) -> Array:
  """Rows of [k d] times sqrt(d), which brings small tables near unit size."""
  rows = jnp.take(table, ids, axis=0, mode="fill", fill_value=jnp.nan)
  return rows.astype(dtype) * jnp.asarray(table.shape[-1] ** 0.5, dtype)
