"""Losses, their weights and ramps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import magvit_losses

from helpers.errors import error_names
from magvit_jax import losses
from magvit_jax.configs import magvit
from magvit_jax.losses import adversarial, entropy, reconstruction

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
  with error_names(KeyError, "loss_new", "stage.weights"):
    losses.weighted_sum(dict(loss_new=1.0), dict(loss_l2=1.0), {}, 0)


@pytest.mark.parametrize("kind", ["weights", "ramps"])
def test_a_weight_or_ramp_without_a_term_is_named_with_the_near_one(kind):
  given = {"weights": {}, "ramps": {}, kind: dict(loss_entropi=1.0)}
  with error_names(KeyError, f"stage.{kind}", "loss_entropi", "loss_entropy"):
    losses.check_weights(dict(loss_entropy=1.0), **given)


@pytest.mark.parametrize("cfg", [dict(name="linea"), dict(steps=3)])
def test_an_unknown_ramp_lists_those_there_are(cfg):
  with error_names(ValueError, "linear", "delayed"):
    losses.ramp(cfg, jnp.int32(0))


@pytest.mark.parametrize(
  "cfg, named",
  [
    (
      dict(name="linear", start=3.0, stop=1.0),
      ["linear", "start", "stop", "steps"],
    ),
    (dict(name="delayed", step=1), ["delayed", "step", "steps"]),
  ],
)
def test_arguments_of_a_ramp_are_checked(cfg, named):
  with error_names(TypeError, *named):
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


@pytest.fixture(scope="module")
def official():
  with np.load(magvit_losses.GOLDEN) as arrays:
    return dict(arrays)


@pytest.mark.parametrize("name", adversarial.LOSSES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_adversarial_loss_pushes_the_logits_apart(name, wrap):
  """Discriminators want real above fake, generators want fake high."""
  loss = adversarial.LOSSES[name]
  logits = jnp.linspace(-0.9, 0.9, 6).reshape(3, 2)
  value, grad = wrap(jax.value_and_grad(loss.generator))(logits)
  assert value.shape == () and value.dtype == jnp.float32
  assert (grad < 0).all()
  value, grads = wrap(jax.value_and_grad(loss.discriminator, (0, 1)))(
    logits, logits
  )
  assert value.shape == () and value.dtype == jnp.float32
  assert (grads[0] < 0).all() and (grads[1] > 0).all()


@pytest.mark.parametrize("name", adversarial.LOSSES)
def test_chance_is_the_loss_of_logits_that_are_all_0(name):
  loss, zero = adversarial.LOSSES[name], jnp.zeros((3, 2))
  assert float(loss.discriminator(zero, zero)) == pytest.approx(loss.chance)
  assert loss.chance > 0


@pytest.mark.parametrize("name", ["non_saturating", "hinge"])
def test_adversarial_losses_are_those_of_the_official_code(name, official):
  x = magvit_losses.inputs()
  pair = adversarial.LOSSES[name]
  want = official[f"g_{name}"], official[f"d_{name}"]
  got = pair.generator(x["fake"]), pair.discriminator(x["real"], x["fake"])
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_r1_is_that_of_the_official_code(official, wrap):
  x = magvit_losses.inputs()
  net = lambda clips: magvit_losses.discriminator(x, clips)  # noqa: E731
  logits, penalty = wrap(lambda clips: adversarial.r1(net, clips))(x["clips"])
  np.testing.assert_allclose(penalty, official["r1"], rtol=1e-5)
  np.testing.assert_allclose(logits, net(x["clips"]), rtol=1e-5)


def test_r1_of_many_logits_is_the_gradient_of_their_sum():
  clips = magvit_losses.inputs()["clips"]
  scale = np.arange(1.0, 4.0, dtype=np.float32)[:, None, None, None, None]
  # Each pixel has a logit of its own, and the gradient 2 scale x.
  penalty = adversarial.r1(lambda x: scale * x**2, clips)[1]
  want = np.mean(np.sum(np.square(2 * scale * clips), axis=(1, 2, 3, 4)))
  assert float(penalty) == pytest.approx(want, rel=1e-5)


def test_r1_of_a_bfloat16_net_is_summed_in_float32():
  ones = jnp.ones((3000, 1), jnp.bfloat16)
  net = lambda x: (x.astype(jnp.bfloat16) @ ones).astype(jnp.float32)  # noqa: E731
  penalty = jax.jit(lambda x: adversarial.r1(net, x)[1])(jnp.ones((2, 3000)))
  assert penalty.dtype == jnp.float32 and float(penalty) == 3000


def test_lecam_is_of_batch_means_as_in_the_official_code(official):
  x = magvit_losses.inputs()
  got = adversarial.lecam(x["real"], x["fake"], *magvit_losses.AVERAGES)
  np.testing.assert_allclose(got, official["lecam"], rtol=1e-5)
  real, fake = jnp.array([1.0, 3.0]), jnp.array([-2.0, 0.0])
  assert float(adversarial.lecam(real, fake, 0.5, 1.5)) == 0.25 + 2.25
  assert float(adversarial.lecam(real, fake, -3.0, 9.0)) == 0


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_entropy_of_distances_is_that_of_the_official_code(official, wrap):
  x = magvit_losses.inputs()

  def loss(z, codes, chunk):
    both = entropy.distance_entropies(z, codes, magvit_losses.TAU, chunk)
    return both[0] - both[1]

  for chunk in (7, 64):
    value, grads = wrap(
      jax.value_and_grad(lambda z, c, n=chunk: loss(z, c, n), (0, 1))
    )(x["latents"], x["codes"])
    # Theirs adds 1e-5 to each probability inside the logarithm.
    near = len(x["codes"]) * 1e-5
    np.testing.assert_allclose(value, official["entropy"], atol=1.1 * near)
    for name, grad in zip(("latents", "codes"), grads, strict=True):
      want = official[f"entropy_at_{name}"]
      np.testing.assert_allclose(grad, want, atol=1e-4)


@pytest.mark.parametrize("model", ["magvit", "magvit2"])
def test_published_weights_give_the_same_losses_in_both_pixel_ranges(model):
  """A linear discriminator of p in [0,1] is one of x = 2 p - 1 too."""
  rng = np.random.default_rng(1)
  p, q = rng.uniform(size=(2, 4, 2, 4, 4, 3)).astype(np.float32)
  w = rng.normal(size=(2 * 4 * 4 * 3, 1)).astype(np.float32)
  theirs = lambda p: p.reshape(4, -1) @ w  # noqa: E731
  ours = lambda x: theirs((x + 1) / 2)  # noqa: E731

  def game(net, real, fake, cost):
    logits, penalty = adversarial.r1(net, real)
    fake = net(fake)
    lecam = adversarial.lecam(logits, fake, *magvit_losses.AVERAGES)
    loss = adversarial.discriminator_non_saturating(logits, fake)
    return loss + cost * penalty + 0.001 * lecam

  weights, _ = magvit.losses(model)
  published = {"magvit": 1.0, "magvit2": 5.0}[model]
  np.testing.assert_allclose(
    game(ours, 2 * p - 1, 2 * q - 1, weights["d_r1"]),
    game(theirs, p, q, 10.0),
    rtol=1e-5,
  )
  penalty = adversarial.r1(theirs, p)[1]
  np.testing.assert_allclose(penalty, np.sum(w**2), rtol=1e-5)
  np.testing.assert_allclose(
    weights["loss_l2"] * reconstruction.l2(2 * p - 1, 2 * q - 1),
    published * np.mean((p - q) ** 2),
    rtol=1e-5,
  )
  assert weights["d_adversarial"] == 1 and weights["g_adversarial"] == 0.1
  assert weights.get("d_lecam", 0) == {"magvit": 0, "magvit2": 0.001}[model]


def test_the_adaptive_weight_of_two_parameters():
  """y = a c + b and D(y) = k y: all gradients are known."""
  c, x, k = 1.5, 0.2, -0.7

  def gradients(a, b):
    rec = jax.grad(lambda a, b: (a * c + b - x) ** 2, (0, 1))(a, b)
    return rec, jax.grad(lambda a, b: -k * (a * c + b), (0, 1))(a, b)

  got = adversarial.adaptive_weight(*gradients(2.0, 0.5))
  length = (c**2 + 1) ** 0.5
  want = 2 * abs(2.0 * c + 0.5 - x) * length / (abs(k) * length + 1e-4)
  assert float(got) == pytest.approx(want, rel=1e-5)
  no_game = dict(a=jnp.zeros(3)), dict(a=jnp.array([3.0, 0.0, 4.0]))
  assert float(adversarial.adaptive_weight(*no_game[::-1])) == 1e4
  assert float(adversarial.adaptive_weight(*no_game)) == 0
