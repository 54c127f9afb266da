"""Attention: the one place where its implementation is chosen."""

import jax

from magvit_jax import sharding
from magvit_jax.nn import flash, kept, target_platform
from magvit_jax.nn import turn as turns
from magvit_jax.types import Array


def attend(
  q: Array,
  k: Array,
  v: Array,
  mask: Array | None = None,
  turn: turns.Turn | None = None,
) -> Array:
  """Softmax attention; logits and softmax are float32 whatever q is.

  On a TPU, under `sharding.computing`, shapes that nn/flash.py takes go through
  its kernels; all else is left to XLA. A kernel has to be told how its work is
  split, so without a mesh in the context XLA does it.

  Args:
    q: [b n heads d], queries.
    k: [b m heads d], keys.
    v: [b m heads d], values.
    mask: bool, broadcasts to [b heads n m]; False is not looked at.
    turn: how queries and keys are normalised and turned first, if they are;
      n is m then.

  Returns:
    [b n heads d], of q's dtype.
  """
  if mask is None and _kernels(q.shape, k.shape):
    out = sharding.by_head(flash.attend, (q, k, v), turn)
  else:
    if turn is not None:
      q, k = turns.plain(q, k, turn)
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")
  # Kept for the backward pass as the kernels lay it, heads in the lanes.
  flat = kept.keep(out.reshape(*out.shape[:2], -1))
  return flat.reshape(out.shape)


def _kernels(q: tuple[int, ...], k: tuple[int, ...]) -> bool:
  _, n, heads, d = q
  own = sharding.own_heads(heads)
  on_tpu = target_platform.current() == "tpu"
  return bool(on_tpu and own and flash.fits(n, k[1], own, d))
