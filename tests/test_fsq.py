"""FSQ: the golden facts of the paper's code, ids of all codes, arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
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
  "args, named",
  [
    (dict(levels=(8, 2)), ["levels", "(8, 2)", "symmetric"]),
    (dict(levels=()), ["levels", "()"]),
    (dict(levels=LEVELS, factors=3), [4, 3, "factors"]),
    (dict(levels=(8,) * 11), [8589934592, "factors"]),
  ],
)
def test_wrong_arguments_name_value_and_cure(args, named):
  with error_names(ValueError, *named):
    fsq.Quantizer(**args)


def test_ids_out_of_range_are_an_error_and_under_jit_the_nearest():
  quantizer = fsq.Quantizer(levels=LEVELS, factors=2)
  for ids, named in [
    ([[40, 0]], [40, "0..39"]),
    ([[0, -1]], [-1, 1, "0..24"]),
    ([[0]], ["(1, 1)", "(40, 25)"]),
  ]:
    with error_names(ValueError, *named):
      quantizer.lookup(jnp.array(ids))
  with error_names(TypeError, "float32"):
    quantizer.lookup(jnp.zeros((1, 2)))
  clamped = jax.jit(quantizer.lookup)(jnp.array([[70, -3]]))
  np.testing.assert_array_equal(clamped, quantizer.lookup(jnp.array([[39, 0]])))


@pytest.mark.parametrize("form", ["symmetric", "clipped"])
def test_symmetric_levels_are_even_from_end_to_end(form):
  quantizer = fsq.Quantizer(levels=(2, 4, 5), form=form)
  ids = jnp.arange(40)[:, None]
  codes = quantizer.lookup(ids)
  for i, level in enumerate((2, 4, 5)):
    values = np.unique(np.asarray(codes)[:, i])
    np.testing.assert_allclose(values, np.linspace(-1, 1, level), atol=1e-6)
  z = codes if form == "clipped" else np.arctanh(0.999 * codes)
  out = jax.jit(lambda z: quantizer.apply({}, z))(z)
  np.testing.assert_array_equal(out.ids, ids)
  np.testing.assert_array_equal(out.codes, codes)


def test_ifsq_makes_bounded_normal_latents_nearly_uniform():
  """2 sigmoid(1.6 z) - 1 = tanh(0.8 z); the outer levels are half as wide."""
  z = jax.random.normal(jax.random.key(0), (100_000, 1))
  sigmoid = 2 * jax.nn.sigmoid(1.6 * z) - 1
  np.testing.assert_allclose(jnp.tanh(0.8 * z), sigmoid, atol=1e-6)
  spread = []
  for gain in (0.8, 1.0):
    quantizer = fsq.Quantizer(levels=(17,), gain=gain, form="symmetric")
    ids = jax.jit(lambda z, q=quantizer: q.apply({}, z).ids)(z)
    p = np.bincount(np.asarray(ids)[:, 0], minlength=17) / len(z)
    spread.append(np.abs(16 * p[1:-1] - 1).max())
  assert spread[0] < 0.1 < 0.2 < spread[1]


def test_noise_replaces_rounding_for_its_share_and_only_with_a_key():
  z = jax.random.normal(jax.random.key(0), (400, 7, 3))
  quantizer = fsq.Quantizer(levels=(5, 4, 3), form="symmetric", noise=0.5)
  apply = jax.jit(lambda z, key: quantizer.apply({}, z, key=key))
  out, plain = apply(z, jax.random.key(1)), apply(z, None)
  np.testing.assert_array_equal(out.ids, plain.ids)
  rounded = np.all(np.asarray(out.codes) == plain.codes, axis=(1, 2))
  assert rounded.mean() == pytest.approx(0.5, abs=0.1)
  noise = np.asarray(out.codes - jnp.tanh(z))[~rounded].reshape(-1, 3)
  half = 1 / (np.array([5, 4, 3]) - 1)
  assert (np.abs(noise) <= half + 1e-6).all()
  np.testing.assert_allclose(noise.std(0), half / np.sqrt(3), rtol=0.05)


def test_vidtok_terms_are_those_of_a_softmax_over_all_codes():
  levels, tau = (4, 3), 0.2
  z = np.asarray(jax.random.normal(jax.random.key(0), (60, 2)))
  quantizer = fsq.Quantizer(levels=levels, temperature=tau)
  out = jax.jit(lambda z: quantizer.apply({}, z))(z)
  codes = np.asarray(quantizer.lookup(np.arange(12)[:, None]))
  soft = np.asarray(fsq.bound(z, levels)) / (np.array(levels) // 2)
  score = np.exp(-np.square(soft[:, None] - codes).sum(-1) / tau)
  p = score / score.sum(-1, keepdims=True)
  token = -(p * np.log(p)).sum(-1).mean()
  batch = -(p.mean(0) * np.log(p.mean(0))).sum()
  np.testing.assert_allclose(out.aux["loss_entropy"], token - batch, rtol=1e-4)
  gap = np.square(z - out.codes).mean()
  np.testing.assert_allclose(out.aux["loss_commitment"], gap, rtol=1e-5)
  assert fsq.Quantizer(levels=levels).apply({}, z).aux == {}


@pytest.mark.parametrize(
  "args, named",
  [
    (dict(form="sigmoid"), ["form", "sigmoid"]),
    (dict(levels=(1,), form="symmetric"), ["levels", "(1,)"]),
    (dict(gain=0.0), ["gain", 0.0]),
    (dict(noise=2.0), ["noise", 2.0]),
    (dict(temperature=-1.0), ["temperature", -1.0]),
    (
      dict(levels=(8,) * 8, factors=2, temperature=0.1),
      ["(8, 8, 8, 8, 8, 8, 8, 8)", 16777216],
    ),
  ],
)
def test_wrong_forms_name_value_and_cure(args, named):
  with error_names(ValueError, *named):
    fsq.Quantizer(**args)
