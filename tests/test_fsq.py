"""FSQ: the golden facts of the paper's code, ids of all codes, arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax.quantizers import fsq

LEVELS = (8, 5, 5, 5)


def test_the_zero_vector_has_id_500():
  out = fsq.Quantizer(levels=LEVELS).apply({}, jnp.zeros(4))
  assert out.ids.tolist() == [500]
  np.testing.assert_array_equal(out.codes, np.zeros(4))


def test_all_ids_round_trip_and_the_first_number_runs_fastest():
  quantizer = fsq.Quantizer(levels=LEVELS)
  ids = jnp.arange(1000)[:, None]
  codes = quantizer.lookup(ids)
  basis = (1, 8, 40, 200)
  digits = np.asarray(codes * np.array([4, 2, 2, 2]) + np.array([4, 2, 2, 2]))
  np.testing.assert_array_equal(digits @ np.array(basis), ids[:, 0])
  assert len(np.unique(np.asarray(codes), axis=0)) == 1000
  # Undoing the bound brings each code back to itself.
  half = (np.array(LEVELS) - 1) * (1 + fsq.EPS) / 2
  even = np.array(LEVELS) % 2 == 0
  shift = np.arctanh(np.where(even, 0.5, 0.0) / half)
  bounded = np.asarray(codes) * (np.array(LEVELS) // 2)
  z = np.arctanh((bounded + np.where(even, 0.5, 0.0)) / half) - shift
  np.testing.assert_array_equal(quantizer.apply({}, z).ids, ids)


@pytest.mark.parametrize("level", [3, 4, 5, 8])
def test_both_ends_are_reached_and_never_passed(level):
  quantizer = fsq.Quantizer(levels=(level,))
  z = jnp.linspace(-50, 50, 4001)[:, None]
  ids = np.asarray(quantizer.apply({}, z).ids)[:, 0]
  assert (np.diff(ids) >= 0).all()
  np.testing.assert_array_equal(np.unique(ids), np.arange(level))


def test_the_gradient_is_that_of_the_bound():
  z = jnp.array([[0.3, -0.7, 0.1, 1.2]])
  levels = np.array(LEVELS)
  half = (levels - 1) * (1 + fsq.EPS) / 2
  shift = np.arctanh(np.where(levels % 2 == 0, 0.5, 0.0) / half)
  want = half / (levels // 2) / np.cosh(np.asarray(z) + shift) ** 2
  quantizer = fsq.Quantizer(levels=LEVELS)
  grad = jax.grad(lambda z: jnp.sum(quantizer.apply({}, z).codes))(z)
  np.testing.assert_allclose(grad, want, rtol=1e-5)


def test_factors_are_ids_of_parts_of_the_numbers():
  z = jax.random.normal(jax.random.key(0), (7, 4))
  split = fsq.Quantizer(levels=LEVELS, factors=2)
  ids = split.apply({}, z).ids
  first = fsq.Quantizer(levels=LEVELS[:2]).apply({}, z[:, :2]).ids
  second = fsq.Quantizer(levels=LEVELS[2:]).apply({}, z[:, 2:]).ids
  np.testing.assert_array_equal(ids, np.concatenate([first, second], -1))
  assert split.sizes == (40, 25) and split.ids_shape((7, 4)) == (7, 2)


@pytest.mark.parametrize(
  "args, words",
  [
    (dict(levels=(8, 2)), "use the form 'symmetric'"),
    (dict(levels=()), "levels are ()"),
    (dict(levels=LEVELS, factors=3), "4 levels do not divide into 3 factors"),
    (dict(levels=(8,) * 11), "use more factors"),
  ],
)
def test_wrong_arguments_name_value_and_cure(args, words):
  with pytest.raises(ValueError) as error:
    fsq.Quantizer(**args)
  assert words in str(error.value)
