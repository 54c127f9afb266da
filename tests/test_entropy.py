"""Entropies of binary codes against brute force over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
  with pytest.raises(ValueError, match="divisor of 10|at least 2 groups"):
    entropy.batch_entropy(jnp.zeros((2, bits)), groups)
