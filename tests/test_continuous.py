"""Quantizers of continuous latents: continuous, channelwise, bernoulli."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.quantizers import bernoulli, channelwise, continuous


@pytest.fixture(scope="module")
def z():
  return jax.random.normal(jax.random.key(0), (4096, 3))


def test_identity_is_the_latent_without_ids(z):
  module = continuous.Quantizer(width=3, form="identity")
  out = module.apply({}, z, key=jax.random.key(1))
  np.testing.assert_array_equal(out.codes, z)
  assert out.ids.shape == (4096, 0) and out.aux == {} and module.sizes == ()
  with error_names(ValueError, "continuous"):
    module.lookup(out.ids)


def test_the_posterior_is_sampled_with_a_key_and_its_kl_is_exact(z):
  module = continuous.Quantizer(width=3, log_var=-2.0)
  variables = jax.jit(module.init)(jax.random.key(1), z)
  apply = jax.jit(module.apply)
  np.testing.assert_array_equal(apply(variables, z).codes, z)
  out = apply(variables, z, key=jax.random.key(2))
  noise = np.asarray(out.codes - z)
  assert noise.std() == pytest.approx(np.exp(-1.0), rel=0.03)
  assert abs(noise.mean()) < 0.02
  var = np.exp(-2.0)
  want = 0.5 * (np.square(z).sum(-1) + 3 * (var - 1 + 2)).mean()
  np.testing.assert_allclose(out.aux["loss_kl"], want, rtol=1e-5)


def test_kl_is_zero_for_the_prior_only():
  assert continuous.kl_divergence(jnp.zeros(4), jnp.zeros(4)) == 0
  # The integral of N(1, e^-1) log N(1, e^-1) / N(0, 1) on a fine grid.
  x = np.linspace(-8, 10, 100001)
  var = np.exp(-1.0)
  p = np.exp(-((x - 1) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)
  ratio = -((x - 1) ** 2) / (2 * var) + 0.5 + x**2 / 2
  want = np.sum(p * ratio) * (x[1] - x[0])
  got = continuous.kl_divergence(jnp.ones(1), -jnp.ones(1))
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_channelwise_levels_are_means_of_bins_of_equal_probability(z):
  levels = channelwise.gaussian_levels(3)
  np.testing.assert_allclose(levels, -levels[::-1], atol=1e-6)
  x = np.clip(np.random.default_rng(0).normal(size=2_000_000), -3, 3)
  bins = np.split(np.sort(x), 8)
  for level, part in zip(levels[1:-1], bins[1:-1], strict=True):
    assert level == pytest.approx(part.mean(), abs=3e-3)
  # The outermost are means of what lies inside +-3.
  assert levels[-1] == pytest.approx(bins[-1][bins[-1] < 3].mean(), abs=3e-3)


@pytest.mark.parametrize(
  "bits, error, entropy",
  [(4, 1.0e-2, 3.71), (5, 2.6e-3, 4.72), (6, 6.6e-4, 5.72)],
)
def test_channelwise_errors_and_entropies_as_measured(bits, error, entropy):
  """The figures of the released function on normal numbers."""
  x = np.random.default_rng(0).normal(size=(200_000, 1)).astype(np.float32)
  module = channelwise.Quantizer(channels=1, bits=bits)
  out = jax.jit(lambda z: module.apply({}, z))(x)
  assert np.square(out.codes - x).mean() == pytest.approx(error, rel=0.06)
  p = np.bincount(np.asarray(out.ids)[:, 0], minlength=2**bits) / len(x)
  assert (p > 0).all()
  assert -(p * np.log2(p)).sum() == pytest.approx(entropy, abs=0.01)


def test_channelwise_takes_the_nearest_level_and_clips(z):
  module = channelwise.Quantizer(
    channels=3, bits=3, low=(-5.0, -1.0, 0.0), high=(5.0, 1.0, 8.0)
  )
  out = jax.jit(lambda z: module.apply({}, z))(3 * z)
  every = module.lookup(np.arange(8)[:, None] * np.ones(3, np.int32))
  gap = np.abs(3 * np.asarray(z)[:, None] - every)
  np.testing.assert_allclose(
    np.abs(3 * np.asarray(z) - out.codes), gap.min(1), atol=1e-5
  )
  again = module.apply({}, out.codes)
  np.testing.assert_array_equal(again.ids, out.ids)


def test_bernoulli_codes_are_subset_sums_and_samples_follow_the_odds(z):
  module = bernoulli.Quantizer(width=3, bits=4, factors=2, temperature=0.5)
  variables = jax.jit(module.init)(jax.random.key(1), z)
  apply = jax.jit(module.apply)
  params = variables["params"]
  logits = z @ params["logits"]["kernel"] + params["logits"]["bias"]
  out = apply(variables, z)
  bits = np.asarray(logits > 0).astype(np.float32)
  np.testing.assert_allclose(out.codes, bits @ params["table"], atol=1e-6)
  np.testing.assert_array_equal(out.ids, bits.reshape(-1, 2, 2) @ [1, 2])
  p = 1 / (1 + np.exp(-logits))
  np.testing.assert_allclose(
    out.aux["loss_code"], (p * (1 - p)).mean(), rtol=1e-5
  )
  same = jnp.broadcast_to(z[0], z.shape)
  ids = np.asarray(apply(variables, same, key=jax.random.key(3)).ids)
  drawn = (ids[:, :, None] >> np.arange(2) & 1).reshape(-1, 4).mean(0)
  odds = 1 / (1 + np.exp(-logits[0] / 0.5))
  np.testing.assert_allclose(drawn, odds, atol=0.04)


def test_bernoulli_gradient_is_that_of_the_probabilities(z):
  module = bernoulli.Quantizer(width=3, bits=4, factors=1)
  variables = jax.jit(module.init)(jax.random.key(1), z)
  rows = z[:5]

  def loss(variables, z):
    return jnp.sum(module.apply(variables, z, key=jax.random.key(0)).codes)

  def soft(z):
    params = variables["params"]
    logits = z @ params["logits"]["kernel"] + params["logits"]["bias"]
    return jnp.sum(jax.nn.sigmoid(logits) @ params["table"])

  grads, grad = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, rows)
  np.testing.assert_allclose(grad, jax.jit(jax.grad(soft))(rows), atol=1e-6)
  counts = grads["params"]["table"][:, 0]
  np.testing.assert_allclose(counts, np.round(counts), atol=1e-5)
  assert counts.max() > 0


@pytest.mark.parametrize(
  "call, named",
  [
    (lambda: continuous.Quantizer(width=0), ["width", 0]),
    (lambda: continuous.Quantizer(form="vae"), ["form", "vae"]),
    (lambda: channelwise.Quantizer(bits=0), ["bits", 0]),
    (lambda: channelwise.Quantizer(channels=0), ["channels", 0]),
    (lambda: channelwise.Quantizer(bits=12), ["radius", 3.0, 12]),
    (lambda: channelwise.Quantizer(low=(1.0, 2.0)), ["low"]),
    (lambda: channelwise.Quantizer(low=5.0), ["low", 5.0]),
    (
      lambda: bernoulli.Quantizer(bits=64, factors=2),
      ["bernoulli", 32, "factors"],
    ),
    (lambda: bernoulli.Quantizer(temperature=0.0), ["temperature", 0.0]),
    (lambda: bernoulli.Quantizer(width=0), ["width", 0]),
  ],
)
def test_wrong_arguments_name_value_and_cure(call, named):
  with error_names(ValueError, *named):
    call()
