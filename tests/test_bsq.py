"""BSQ: ids, the sphere, and what the paper says of its errors and terms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.quantizers import bsq, lfq


@functools.partial(jax.jit, static_argnums=0)
def apply(quantizer, z):
  return quantizer.apply({}, z)


def random_latents(n, bits, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, bits)).astype(np.float32)


def test_the_first_number_is_the_lowest_bit_and_zero_counts_as_negative():
  z = jnp.array([[1.0] + [-1.0] * 17, [0.0] * 18])
  assert apply(bsq.Quantizer(), z).ids.tolist() == [[1], [0]]


def test_every_code_of_16_bits_and_random_ones_of_36_round_trip():
  whole = np.arange(2**16)[:, None]
  random = np.random.default_rng(0).integers(0, 2**18, (4096, 2))
  for args, ids in [
    (dict(bits=16), whole),
    (dict(bits=36, factors=2), random),
  ]:
    quantizer = bsq.Quantizer(**args)
    codes = quantizer.lookup(jnp.asarray(ids, jnp.int32))
    out = apply(quantizer, 3.0 * codes)
    np.testing.assert_array_equal(out.ids, ids)
    np.testing.assert_array_equal(out.codes, codes)


def test_codes_lie_on_the_sphere_within_the_bound_of_the_error():
  bits = 18
  z = random_latents(500, bits)
  z[0] = np.eye(bits)[0]  # the worst case: one number has all the length
  codes = np.asarray(apply(bsq.Quantizer(bits=bits), z).codes)
  np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1, rtol=1e-6)
  u = z / np.linalg.norm(z, axis=-1, keepdims=True)
  error = np.square(u - codes).sum(-1)
  worst = 2 - 2 / np.sqrt(bits)
  assert error[0] == pytest.approx(worst, rel=1e-5)
  assert (error[1:] < worst).all()


def test_gradients_are_tangent_to_the_sphere():
  z = jnp.asarray(random_latents(20, 6))
  weights = random_latents(20, 6, seed=1)
  quantizer = bsq.Quantizer(bits=6)

  @jax.jit
  @jax.grad
  def grad(z):
    out = quantizer.apply({}, z)
    return jnp.sum(weights * out.codes) + out.aux["loss_entropy"]

  along = jnp.sum(grad(z) * z, axis=-1)
  np.testing.assert_allclose(along, 0, atol=1e-5)
  # Through the codes alone: the Jacobian of v / |v|, (I - u u^T) / |v|.
  got = jax.jit(jax.grad(lambda z: jnp.sum(weights * bsq.sphere(z))))(z)
  length = np.linalg.norm(z, axis=-1, keepdims=True)
  u = z / length
  want = (weights - u * np.sum(u * weights, -1, keepdims=True)) / length
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_zero_latent_has_a_finite_gradient():
  quantizer = bsq.Quantizer(bits=4)

  def loss(z):
    out = quantizer.apply({}, z)
    return jnp.sum(out.codes) + out.aux["loss_commitment"]

  grad = jax.jit(jax.grad(loss))(jnp.zeros((2, 4)))
  assert np.isfinite(grad).all()


def test_its_entropy_is_that_of_a_softmax_over_all_codes():
  bits, tau = 6, 0.3
  z = random_latents(50, bits)
  quantizer = bsq.Quantizer(bits=bits, temperature=tau, groups=1)
  aux = apply(quantizer, z).aux
  codes = quantizer.lookup(np.arange(2**bits)[:, None])
  u = z / np.linalg.norm(z, axis=-1, keepdims=True)
  score = -np.square(u[:, None] - codes).sum(-1) / tau
  p = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
  token = -(p * np.log(p)).sum(-1).mean()
  mean = p.mean(0)
  batch = -(mean * np.log(mean)).sum()
  np.testing.assert_allclose(aux["entropy_token"], token, rtol=1e-5)
  np.testing.assert_allclose(aux["entropy_batch"], batch, rtol=1e-5)
  np.testing.assert_allclose(
    aux["loss_entropy"], tau * (token - batch), rtol=1e-4
  )
  gap = np.square(u - np.where(u > 0, 1, -1) / np.sqrt(bits)).sum(-1).mean()
  np.testing.assert_allclose(aux["loss_commitment"], gap, rtol=1e-5)


def test_groups_bound_the_batch_entropy_from_above():
  """Golden: 2000 latents of 18 bits at inverse temperature 100."""
  z = random_latents(2000, 18)

  aux = [
    apply(bsq.Quantizer(temperature=0.01, groups=g), z).aux for g in (1, 2, 18)
  ]
  exact, grouped, bitwise = (float(a["entropy_batch"]) for a in aux)
  token = float(aux[0]["entropy_token"])
  assert exact < grouped < bitwise <= 18 * np.log(2) + 1e-5
  assert exact <= np.log(2000) + token
  golden = [8.56461, 12.29821, 12.47375, 0.98327]
  np.testing.assert_allclose(
    [exact, grouped, bitwise, token], golden, rtol=1e-3
  )


def test_the_default_is_groups_of_nine_bits():
  z = random_latents(100, 18)
  aux = [apply(bsq.Quantizer(groups=g), z).aux for g in (0, 2)]
  assert aux[0]["entropy_batch"] == aux[1]["entropy_batch"]
  assert bsq.Quantizer(bits=35, factors=5).sizes == (128,) * 5


def test_signs_and_ids_are_those_of_lfq():
  z = random_latents(50, 12)
  ours = apply(bsq.Quantizer(bits=12, factors=2), z)
  theirs = apply(lfq.Quantizer(bits=12, factors=2), z)
  np.testing.assert_array_equal(ours.ids, theirs.ids)
  np.testing.assert_allclose(ours.codes * np.sqrt(12), theirs.codes, rtol=1e-6)


@pytest.mark.parametrize(
  "args, named",
  [
    (dict(bits=18, factors=4), ["bits", 18, "factors", 4, "bsq"]),
    (dict(bits=36), ["bsq", 36, "factors"]),
    (dict(temperature=-1.0), ["temperature", -1.0]),
    (dict(bits=18, groups=4), ["bits", 18, "groups", 4]),
  ],
)
def test_wrong_arguments_name_value_and_cure(args, named):
  with error_names(ValueError, *named):
    bsq.Quantizer(**args)
