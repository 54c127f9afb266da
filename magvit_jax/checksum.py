"""Checksums of trees of arrays: one for devices, one that names a file."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from magvit_jax import tree as trees
from magvit_jax.types import Array, PyTree


def bits(tree: PyTree) -> int:
  """Sum of all words times odd weights, modulo 2^32.

  Computed where the arrays live, whatever their shardings are: integers add up
  to the same in any order. One flipped bit changes a word by a power of two,
  and an odd weight times a power of two below 2^32 is never 0 modulo 2^32.
  """
  # One program per shape: moments and averages share those of the params.
  sums = jax.device_get([_leaf_bits(leaf) for leaf in jax.tree.leaves(tree)])
  total = 0
  for number, leaf_sum in enumerate(sums):
    total += int(leaf_sum) * (2 * number + 1)
  return total % 2**32


@jax.jit
def _leaf_bits(leaf: Array) -> Array:
  words = _words(leaf)
  index = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    line = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    index = index * jnp.uint32(size) + line
  weight = index * jnp.uint32(2654435762) + jnp.uint32(1)
  return jnp.sum(words * weight, dtype=jnp.uint32)


def _words(leaf: Array) -> Array:
  if leaf.dtype == jnp.bool_:
    return leaf.astype(jnp.uint32)
  width = min(leaf.dtype.itemsize * 8, 32)
  unsigned = jnp.dtype(f"uint{width}")
  return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def sha256(tree: PyTree) -> str:
  """Hexadecimal hash of the names, shapes, types and bits; on the host.

  All processes call it where parts of the arrays are on devices of others.
  """
  digest = hashlib.sha256()
  for name, leaf in trees.named(tree).items():
    digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
    digest.update(np.ascontiguousarray(_whole(leaf)))
  return digest.hexdigest()


def _whole(leaf: Array) -> Array:
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    return multihost_utils.process_allgather(leaf, tiled=True)
  return leaf
