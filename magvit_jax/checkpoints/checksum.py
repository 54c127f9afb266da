"""Checksums and hashes of arrays and files.

`bits` is taken on the devices, at each save. The SHA-256 of arrays or of a file
is its name: runs, exports and token files refer to weights by it.
"""

import hashlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from magvit_jax.files import paths
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


def sha256(arrays: Mapping[str, Array]) -> str:
  """Hexadecimal hash of the names, shapes, types and bits; on the host.

  All processes call it where parts of the arrays are on devices of others.
  """
  digest = hashlib.sha256()
  for name, leaf in arrays.items():
    host = np.asarray(_whole(leaf))
    digest.update(f"{name} {host.dtype} {host.shape}".encode())
    digest.update(np.ascontiguousarray(host).reshape(-1).view(np.uint8))
  return digest.hexdigest()


def fingerprint(params: PyTree) -> str:
  """16 hex digits that change with any weight, its name or its shape."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  # The names as JAX writes them, "['a']['b']": token files and configs hold
  # fingerprints of these.
  return sha256({jax.tree_util.keystr(k): leaf for k, leaf in leaves})[:16]


def file_sha256(path: paths.Name) -> str:
  """Hexadecimal hash of the bytes of a file."""
  with paths.as_path(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(leaf: Array) -> Array:
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    return multihost_utils.process_allgather(leaf, tiled=True)
  return leaf
