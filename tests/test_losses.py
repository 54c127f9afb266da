"""Losses, their weights and ramps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax import losses
from magvit_jax.losses import adversarial, reconstruction

LINE = dict(name="linear", start=3.0, stop=1.0, steps=2000)


@pytest.mark.parametrize(
  "step, want", [(0, 3.0), (500, 2.5), (2000, 1.0), (9000, 1.0)]
)
def test_a_linear_ramp(step, want):
  assert float(losses.ramp(LINE, jnp.int32(step))) == want


def test_a_delayed_ramp_starts_at_its_step():
  values = [
    float(losses.ramp(dict(name="delayed", steps=10), jnp.int32(step)))
    for step in (0, 9, 10, 11)
  ]
  assert values == [0, 0, 1, 1]


def test_the_sum_is_weight_times_ramp_times_term_under_jit():
  terms = dict(a=jnp.float32(2.0), b=jnp.float32(5.0))
  weights = dict(a=0.5, b=0.1, later=1.0)

  @jax.jit
  def total(step):
    return losses.weighted_sum(terms, weights, dict(b=LINE), step)

  assert float(total(0)) == pytest.approx(0.5 * 2 + 0.1 * 3 * 5)
  assert float(total(2000)) == pytest.approx(0.5 * 2 + 0.1 * 1 * 5)


def test_a_term_without_a_weight_is_named_with_the_cure():
  with pytest.raises(KeyError, match="'loss_new' has no weight; add it to"):
    losses.weighted_sum(dict(loss_new=1.0), dict(loss_l2=1.0), {}, 0)


@pytest.mark.parametrize("kind", ["weights", "ramps"])
def test_a_weight_or_ramp_without_a_term_is_named_with_the_near_one(kind):
  given = {"weights": {}, "ramps": {}, kind: dict(loss_entropi=1.0)}
  with pytest.raises(KeyError) as error:
    losses.check_weights(dict(loss_entropy=1.0), **given)
  text = error.value.args[0]
  assert f"stage.{kind} has 'loss_entropi'" in text
  assert "did you mean 'loss_entropy'?" in text


@pytest.mark.parametrize("cfg", [dict(name="linea"), dict(steps=3)])
def test_an_unknown_ramp_lists_those_there_are(cfg):
  with pytest.raises(ValueError, match="it is one of linear, delayed"):
    losses.ramp(cfg, jnp.int32(0))


@pytest.mark.parametrize(
  "cfg, words",
  [
    (
      dict(name="linear", start=3.0, stop=1.0),
      "takes start, stop, steps, and its config has start, stop;",
    ),
    (dict(name="delayed", step=1), "did you mean 'steps'"),
  ],
)
def test_arguments_of_a_ramp_are_checked(cfg, words):
  with pytest.raises(TypeError, match=words):
    losses.ramp(cfg, jnp.int32(0))


def test_reconstruction_losses_are_means_over_everything():
  video = jnp.zeros((2, 3, 4, 4, 3))
  recon = video.at[0].set(0.5)
  assert float(reconstruction.l1(video, recon)) == pytest.approx(0.25)
  assert float(reconstruction.l2(video, recon)) == pytest.approx(0.125)


def test_non_saturating_losses_are_log_likelihoods_also_when_sure():
  real, fake = jnp.array([0.3, -1.0]), jnp.array([0.7, 2.0])
  sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x)))  # noqa: E731
  np.testing.assert_allclose(
    adversarial.generator_non_saturating(fake),
    -np.log(sigmoid(fake)).mean(),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    adversarial.discriminator_non_saturating(real, fake),
    -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean(),
    rtol=1e-5,
  )
  loss = lambda x: adversarial.generator_non_saturating(x)  # noqa: E731
  value, grad = jax.jit(jax.value_and_grad(loss))(jnp.array([-1e4]))
  assert float(value) == 1e4 and grad.tolist() == [-1.0]
