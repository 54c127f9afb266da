"""LFQ: ids, bad arguments, and what its entropy term does to latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.quantizers import lfq


def test_the_first_number_is_the_lowest_bit():
  z = jnp.array([1.0] + [-1.0] * 9)
  assert lfq.Quantizer(bits=10).apply({}, z).ids.tolist() == [1]
  assert lfq.Quantizer(bits=10).apply({}, -z).ids.tolist() == [1022]


def test_zero_counts_as_minus_one():
  out = lfq.Quantizer(bits=4).apply({}, jnp.zeros((1, 4)))
  assert out.ids.tolist() == [[0]]
  np.testing.assert_array_equal(out.codes, -np.ones((1, 4)))


@pytest.mark.parametrize("factors", [1, 2, 5])
def test_every_id_round_trips_and_factors_are_slices_of_the_bits(factors):
  quantizer = lfq.Quantizer(bits=10, factors=factors)
  whole = np.arange(2**10)
  width = 10 // factors
  ids = np.stack([whole >> (width * f) for f in range(factors)], -1) % 2**width
  codes = quantizer.lookup(jnp.asarray(ids))
  np.testing.assert_array_equal(quantizer.apply({}, codes).ids, ids)
  same = lfq.Quantizer(bits=10).lookup(jnp.asarray(whole)[:, None])
  np.testing.assert_array_equal(codes, same)
  assert quantizer.sizes == (2**width,) * factors
  assert quantizer.ids_shape((2, 3, 10)) == (2, 3, factors)


def test_thirty_bits_still_make_a_positive_id():
  quantizer = lfq.Quantizer(bits=30, groups=3)
  ids = quantizer.apply({}, jnp.ones((1, 30))).ids
  assert ids.tolist() == [[2**30 - 1]]
  np.testing.assert_array_equal(quantizer.lookup(ids), np.ones((1, 30)))


def test_gradients_pass_straight_through():
  z = jax.random.normal(jax.random.key(0), (5, 6))
  weights = jax.random.normal(jax.random.key(1), z.shape)
  quantizer = lfq.Quantizer(bits=6)
  grad = jax.grad(lambda z: jnp.sum(weights * quantizer.apply({}, z).codes))(z)
  np.testing.assert_array_equal(grad, weights)


def test_descending_its_entropy_term_spreads_the_codes_and_makes_them_sure():
  quantizer = lfq.Quantizer(bits=4, temperature=1.0)
  z = 0.3 + 0.1 * jax.random.normal(jax.random.key(0), (256, 4))
  term = lambda z: quantizer.apply({}, z).aux["loss_entropy"]  # noqa: E731
  assert len(np.unique(quantizer.apply({}, z).ids)) < 4

  def descend(z, _):
    return z - 30.0 * jax.grad(term)(z), None

  after = quantizer.apply({}, jax.lax.scan(descend, z, length=100)[0])
  assert len(np.unique(after.ids)) == 16
  assert after.aux["entropy_token"] < 0.2
  assert after.aux["entropy_batch"] > 0.85 * 4 * np.log(2)


def test_commitment_is_the_mean_square_and_does_not_pull_codes():
  z = jnp.array([[0.5, -3.0]])
  quantizer = lfq.Quantizer(bits=2)
  value, grad = jax.value_and_grad(
    lambda z: quantizer.apply({}, z).aux["loss_commitment"]
  )(z)
  assert value == pytest.approx((0.25 + 4.0) / 2)
  np.testing.assert_allclose(grad, [[-0.5, -2.0]])


@pytest.mark.parametrize(
  "args, named",
  [
    (dict(bits=18, factors=4), ["bits", 18, "factors", 4]),
    (dict(bits=0), ["bits", 0]),
    (dict(bits=40), [40, "factors"]),
    (dict(temperature=0.0), ["temperature", 0.0]),
    (dict(bits=18, groups=4), ["bits", 18, "groups", 4]),
    (dict(bits=24, factors=2), ["bits", 24, 2]),
  ],
)
def test_wrong_arguments_name_value_and_cure(args, named):
  with error_names(ValueError, *named):
    lfq.Quantizer(**args)


def test_every_code_of_16_bits_and_random_ones_of_36_round_trip():
  whole = np.arange(2**16)[:, None]
  random = np.random.default_rng(0).integers(0, 2**18, (4096, 2))
  for args, ids in [
    (dict(bits=16), whole),
    (dict(bits=36, factors=2, groups=2), random),
  ]:
    quantizer = lfq.Quantizer(**args)
    codes = quantizer.lookup(jnp.asarray(ids, jnp.int32))
    bits = lfq.bits_to_ids(codes > 0, quantizer.factors)
    np.testing.assert_array_equal(bits, ids)


def test_ids_out_of_range_are_an_error_and_under_jit_the_nearest():
  quantizer = lfq.Quantizer(bits=6, factors=2)
  with error_names(ValueError, 8, 1, "0..7"):
    quantizer.lookup(jnp.array([[7, 8]]))
  clamped = jax.jit(quantizer.lookup)(jnp.array([[9, -1]]))
  np.testing.assert_array_equal(clamped, quantizer.lookup(jnp.array([[7, 0]])))


def test_numbers_too_large_for_the_temperature_are_counted():
  z = jnp.array([[0.1, -2.4, 2.6, -90.0]])  # log-odds of 4 z at temperature 1
  quantizer = lfq.Quantizer(bits=4, temperature=1.0)
  share = lambda z: quantizer.apply({}, z).aux["entropy_saturated"]  # noqa: E731
  assert share(z) == 0.5
  assert share(z[:0]) == 0
  grad = jax.grad(lambda z: quantizer.apply({}, z).aux["entropy_token"])(z)
  assert np.all(np.abs(grad[0, 2:]) < 0.01 * np.abs(grad[0, 0]))
