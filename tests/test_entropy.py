"""Entropies of binary codes against brute force over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.losses import entropy

D, N, TAU = 10, 200, 0.5


@pytest.fixture(scope="module")
def latents():
  return 0.3 * jax.random.normal(jax.random.key(0), (N, D))


@pytest.fixture(scope="module")
def explicit(latents):
  """p(code | u) = softmax(-|u - code|^2 / tau) over all 2^D codes, [N 2^D]."""
  codes = 2.0 * ((np.arange(2**D)[:, None] >> np.arange(D)) & 1) - 1
  u = np.asarray(latents, np.float64)
  score = -np.square(u[:, None] - codes).sum(-1) / TAU
  p = np.exp(score - score.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def shannon(p):
  return -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=-1)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_both_equal_the_explicit_softmax(latents, explicit, wrap):
  logits = 4 / TAU * latents
  token = wrap(entropy.token_entropy)(logits)
  np.testing.assert_allclose(token, shannon(explicit).mean(), rtol=1e-5)
  batch = wrap(entropy.batch_entropy)(logits)
  np.testing.assert_allclose(batch, shannon(explicit.mean(0)), rtol=1e-5)


def test_groups_bound_the_exact_entropy_from_above(latents):
  # Equal bits inside each group of two, and two equal groups.
  tied = jnp.repeat(latents[:, np.array([0, 1, 2, 3, 0])], 2, axis=1)
  logits = 4 / 0.01 * tied
  exact, grouped, bitwise = (
    float(entropy.batch_entropy(logits, groups)) for groups in (1, 5, D)
  )
  assert exact < grouped - 0.1 and grouped < bitwise - 0.1
  assert bitwise <= D * np.log(2) * (1 + 2e-5)
  token = float(entropy.token_entropy(logits))
  assert token - 1e-4 <= exact <= np.log(N) + token + 1e-4


def test_even_codes_reach_d_ln_2():
  zeros = jnp.zeros((3, D))
  for value in (
    entropy.token_entropy(zeros),
    entropy.batch_entropy(zeros),
    entropy.batch_entropy(zeros, 5),
  ):
    assert float(value) == pytest.approx(D * np.log(2), rel=2e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("size", [0.0, 30.0, 400.0, 1e5])
def test_saturated_bits_have_finite_values_and_gradients(size, wrap):
  signs = 2.0 * ((np.arange(16)[:, None] >> np.arange(D)) & 1) - 1

  def both(logits):
    return entropy.token_entropy(logits) - entropy.batch_entropy(logits)

  value, grad = wrap(jax.value_and_grad(both))(
    jnp.asarray(size * signs, jnp.float32)
  )
  assert np.isfinite(value) and np.isfinite(grad).all()
  if size == 1e5:
    assert float(value) == pytest.approx(-np.log(16), rel=1e-5)


def test_the_gradient_is_that_of_brute_force(latents):
  """Central differences, in a direction that moves every bit."""
  logits = 4 / TAU * latents
  way = jax.random.normal(jax.random.key(2), logits.shape)
  grad = jnp.vdot(jax.grad(entropy.batch_entropy)(logits), way)
  step = 0.02
  ends = [entropy.batch_entropy(logits + s * step * way) for s in (1, -1)]
  np.testing.assert_allclose(
    grad, (ends[0] - ends[1]) / (2 * step), rtol=2e-2, atol=1e-4
  )


def test_eighteen_bits_of_1280_latents_fit_in_little_memory():
  """Two tables of 512 columns and one marginal, never 1280 x 2^18 floats."""

  def grad(logits):
    return jax.grad(
      lambda x: entropy.token_entropy(x) - entropy.batch_entropy(x)
    )(logits)

  shape = jax.ShapeDtypeStruct((1280, 18), jnp.float32)
  memory = jax.jit(grad).lower(shape).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 32 * 2**20  # the naive way: 1.3 GiB


@pytest.mark.parametrize("bits, groups", [(10, 3), (10, 0), (21, 1)])
def test_groups_that_do_not_fit_are_refused(bits, groups):
  with error_names(ValueError, bits):
    entropy.batch_entropy(jnp.zeros((2, bits)), groups)


LEVELS = (4, 3, 5)


@pytest.fixture(scope="module")
def grid():
  """Log probabilities of the levels of each number, and of all codes."""
  keys = jax.random.split(jax.random.key(3), len(LEVELS))
  rows = [
    jax.nn.log_softmax(2 * jax.random.normal(k, (50, n)))
    for k, n in zip(keys, LEVELS, strict=True)
  ]
  p = [np.exp(np.asarray(r, np.float64)) for r in rows]
  joint = np.einsum("na,nb,nc->nabc", *p).reshape(50, -1)
  return rows, joint


def test_entropies_of_a_grid_equal_brute_force_and_groups_bound_them(grid):
  rows, joint = grid
  token = jax.jit(entropy.grid_token_entropy)(rows)
  np.testing.assert_allclose(token, shannon(joint).mean(), rtol=1e-5)
  exact, single = (
    jax.jit(entropy.grid_batch_entropy, static_argnums=1)(rows, groups)
    for groups in (1, 3)
  )
  np.testing.assert_allclose(exact, shannon(joint.mean(0)), rtol=1e-5)
  want = sum(shannon(np.exp(r).mean(0)) for r in rows)
  np.testing.assert_allclose(single, want, rtol=1e-5)
  assert exact < single <= np.log(np.prod(LEVELS))


def test_a_grid_of_two_levels_is_binary():
  logits = jax.random.normal(jax.random.key(4), (30, 4))
  rows = [
    jnp.stack([jax.nn.log_sigmoid(-x), jax.nn.log_sigmoid(x)], -1)
    for x in logits.T
  ]
  for groups in (1, 2, 4):
    np.testing.assert_allclose(
      entropy.grid_batch_entropy(rows, groups),
      entropy.batch_entropy(logits, groups),
      rtol=1e-5,
    )
  np.testing.assert_allclose(
    entropy.grid_token_entropy(rows), entropy.token_entropy(logits), rtol=1e-5
  )


def test_a_table_in_chunks_equals_the_whole_softmax_and_its_gradient():
  z = jax.random.normal(jax.random.key(5), (50, 6))
  codes = jax.random.normal(jax.random.key(6), (24, 6))

  def whole(z, codes):
    p = jax.nn.softmax(z @ codes.T / 0.5)
    mean = p.mean(0)
    token = -jnp.mean(jnp.sum(p * jnp.log(p), -1))
    return token, -jnp.sum(mean * jnp.log(mean))

  def difference(f):
    return lambda *args: jnp.subtract(*f(*args))

  want = jax.jit(whole)(z, codes)
  grads = jax.jit(jax.grad(difference(whole), (0, 1)))(z, codes)
  for chunk in (7, 64):

    def cut(z, codes, chunk=chunk):
      return entropy.table_entropies(z, codes, 0.5, chunk)

    np.testing.assert_allclose(jax.jit(cut)(z, codes), want, rtol=1e-5)
    got = jax.jit(jax.grad(difference(cut), (0, 1)))(z, codes)
    for a, b in zip(got, grads, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_large_table_never_meets_all_latents_at_once():
  shapes = [
    jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4096, 8), (4096, 8))
  ]

  def grad(z, codes):
    return jax.grad(
      lambda z: jnp.subtract(*entropy.table_entropies(z, codes, 0.1, 256))
    )(z)

  memory = jax.jit(grad).lower(*shapes).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4096 * 4096 * 4 / 2


def test_no_latents_have_no_entropy():
  rows = [jnp.zeros((0, n)) for n in LEVELS]
  assert entropy.grid_token_entropy(rows) == 0
  assert entropy.grid_batch_entropy(rows) == 0
  both = entropy.table_entropies(jnp.zeros((0, 3)), jnp.ones((5, 3)), 1.0)
  assert both[0] == 0 and both[1] == 0


@pytest.mark.parametrize(
  "levels, groups, named",
  [((8,) * 6, 4, (6, 4)), ((8,) * 7, 1, ((8,) * 7, 2**21))],
)
def test_grids_that_do_not_fit_are_refused(levels, groups, named):
  with error_names(ValueError, *named):
    entropy.check_grid(levels, groups)
