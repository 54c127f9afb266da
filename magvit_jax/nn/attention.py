"""Attention: the one place where its implementation is chosen."""

import jax

from magvit_jax.types import Array

IMPLEMENTATION = "xla"


def attend(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
  """Softmax attention; logits and softmax are float32 whatever q is.

  Args:
    q: [b n heads d], queries.
    k: [b m heads d], keys.
    v: [b m heads d], values.
    mask: bool, broadcasts to [b heads n m]; False is not looked at.

  Returns:
    [b n heads d], of q's dtype.
  """
  return jax.nn.dot_product_attention(
    q, k, v, mask=mask, implementation=IMPLEMENTATION
  )
