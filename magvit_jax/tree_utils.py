"""Trees of arrays: names such as 'gen/down_0/kernel', counts, a table."""

import math

import jax
import jax.numpy as jnp

from magvit_jax.types import Array, PyTree


def path_name(path: tuple) -> str:
  """'a/b/c' for a path of `jax.tree_util`, whatever the containers are."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def named(tree: PyTree) -> dict[str, Array]:
  """The leaves of `tree` by name, in the order of `jax.tree.leaves`."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {path_name(path): leaf for path, leaf in leaves}


def count(tree: PyTree) -> int:
  """Number of scalars in the arrays (or ShapeDtypeStructs) of `tree`."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def all_finite(tree: PyTree) -> Array:
  """bool []: no leaf holds a NaN or an infinity. True for an empty tree."""
  flags = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
  return jnp.stack(flags).all() if flags else jnp.asarray(True)


def table(tree: PyTree) -> str:
  """Text with one line per leaf (name, shape, dtype, count) and the total."""
  rows = [("name", "shape", "dtype", "count")]
  for name, leaf in named(tree).items():
    shape = "x".join(map(str, leaf.shape)) or "scalar"
    rows.append((name, shape, str(leaf.dtype), f"{count(leaf):,}"))
  rows.append(("total", "", "", f"{count(tree):,}"))
  w = [max(len(row[i]) for row in rows) for i in range(4)]
  lines = [
    f"{a:<{w[0]}}  {b:<{w[1]}}  {c:<{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows
  ]
  rule = "-" * len(lines[0])
  return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
