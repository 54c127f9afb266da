"""Attention: the one place where its implementation is chosen."""

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from magvit_jax import sharding
from magvit_jax.nn import flash
from magvit_jax.types import Array

NAME = "attention"  # of the result, for policies of remat


def attend(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
  """Softmax attention; logits and softmax are float32 whatever q is.

  On a TPU, under `sharding.computing`, shapes that nn/flash.py takes go through
  its kernels; all else is left to XLA. A kernel has to be told how its work is
  split, so without a mesh in the context XLA does it.

  Args:
    q: [b n heads d], queries.
    k: [b m heads d], keys.
    v: [b m heads d], values.
    mask: bool, broadcasts to [b heads n m]; False is not looked at.

  Returns:
    [b n heads d], of q's dtype.
  """
  if mask is None and _kernels(q.shape, k.shape):
    out = _split(flash.attend)(q, k, v)
  else:
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")
  return checkpoint_name(out, NAME)


def _kernels(q: tuple[int, ...], k: tuple[int, ...]) -> bool:
  mesh = jax.sharding.get_abstract_mesh()
  if jax.default_backend() != "tpu" or mesh.empty:
    return False
  parts, (_, n, heads, d) = mesh.shape["tensor"], q
  return not heads % parts and flash.fits(n, k[1], heads // parts, d)


def _split(function):
  """Each device computes its own examples and heads, of all tokens."""
  spec = PartitionSpec(sharding.BATCH_AXES, None, "tensor")
  return jax.shard_map(function, in_specs=spec, out_specs=spec, check_vma=False)
