"""Names, counts and the parameter table."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from magvit_jax import tree_utils


class Pair(NamedTuple):
  first: dict
  second: jax.Array


TREE = Pair({"a": {"kernel": jnp.ones((2, 3))}}, jnp.zeros((), jnp.int32))


def test_names_cross_containers():
  assert list(tree_utils.named(TREE)) == ["first/a/kernel", "second"]


def test_count_takes_shapes_too():
  assert tree_utils.count(TREE) == 7
  assert tree_utils.count(jax.eval_shape(lambda: TREE)) == 7


def test_table_lists_every_leaf_and_the_total():
  lines = tree_utils.table(TREE).splitlines()
  assert lines[2].split() == ["first/a/kernel", "2x3", "float32", "6"]
  assert lines[3].split() == ["second", "scalar", "int32", "1"]
  assert lines[-1].split() == ["total", "7"]


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_all_finite_sees_one_bad_value_also_jitted(value):
  bad = {"x": jnp.ones(3), "y": jnp.ones(2).at[1].set(value)}
  assert not tree_utils.all_finite(bad)
  assert not jax.jit(tree_utils.all_finite)(bad)
  assert tree_utils.all_finite({"x": jnp.ones(3)})
  assert tree_utils.all_finite({})
