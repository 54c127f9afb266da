"""The game in the tokenizer stage, against losses written out for tiny nets.

The first moment of Adam's first step is the gradient times 1 - b1, which shows
what each side was moved by. Few programs serve all tests.
"""

import functools
import importlib
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.errors import error_names
from helpers.tokenizer_training import Training
from magvit_jax import optim, registry, tokenizers
from magvit_jax.losses import adversarial
from magvit_jax.quantizers import continuous
from magvit_jax.stages import _gan, tokenizer
from magvit_jax.tokenizers import Tokenizer

KEY = jax.random.key(3)
GEN = dict(loss_l2=2.0, g_adversarial=0.5)
DISC = dict(d_adversarial=1.0, d_r1=0.3, d_lecam=0.7)
IMAGE = dict(image_loss_l2=3.0, image_loss_perceptual=0.2)
IMAGE |= dict(image_g_adversarial=0.4, image_d_adversarial=0.6)
AVERAGES = dict(real=jnp.float32(0.9), fake=jnp.float32(-0.8))
START = 5  # the step where the adaptive game begins
EVERY = 3  # steps from one R1 to the next, there


class Decoder(nn.Module):
  @nn.compact
  def __call__(self, codes):
    return nn.Dense(3, name="head")(nn.tanh(nn.Dense(4)(codes)))


class Pointwise(nn.Module):
  """A backbone whose latents see one pixel."""

  latent_dim: int

  def setup(self):
    self.encoder, self.decoder = nn.Dense(self.latent_dim), Decoder()

  def encode(self, video):
    return self.encoder(video)

  def decode(self, codes):
    return self.decoder(codes)


class Critic(nn.Module):
  """A logit for each frame."""

  @nn.compact
  def __call__(self, video):
    x = nn.tanh(nn.Dense(4)(video))
    return nn.Dense(1)(jnp.mean(x, (2, 3)))


class Weighted(NamedTuple):
  """A perceptual loss: a norm with weights."""

  def loss(self, params, video, recon):
    return jnp.mean(jnp.square(params * (recon - video)))


MODULE = Tokenizer(Pointwise(3), continuous.Quantizer(width=3, form="identity"))


def training(weights, images=False, accumulate=1, ramps=None, **recipe):
  discriminators = (Critic(), Critic()) if images else (Critic(),)
  return Training(
    tokenizer.Recipe(
      MODULE,
      tokenizer.modalities(*discriminators),
      weights,
      ramps or {},
      optim.make(100, name="adam", lr=0.02, schedule="constant"),
      dict(decay=0.9, warmup=True),
      _gan.Adversarial(**recipe),
      Weighted() if images else None,
      accumulate=accumulate,
    )
  )


@pytest.fixture(scope="module")
def batch():
  """Clips and images that differ much from each other."""
  rng = np.random.default_rng(0)
  shift = np.linspace(-2, 2, 4)[:, None, None, None, None]
  video = 0.3 * rng.normal(size=(4, 2, 2, 2, 3)) + shift
  image = 0.5 * rng.normal(size=(2, 1, 2, 2, 3)) - 1
  made = dict(video=video, image=image)
  return {name: x.astype(np.float32) for name, x in made.items()}


@pytest.fixture(scope="module")
def clips(batch):
  return {"video": batch["video"]}


@pytest.fixture(scope="module")
def whole(batch):
  """Clips and images, all terms: (state, jitted step)."""
  weights = GEN | DISC | IMAGE | dict(loss_perceptual=0.1)
  train = training(weights, images=True)
  frozen = {"perceptual": jnp.array([1.0, 2.0, 0.5])}
  state = jax.jit(train.init)(KEY, batch, frozen)
  lecam = {"lecam": {"disc": AVERAGES}}
  return state._replace(extra=state.extra | lecam), jax.jit(train.step)


@pytest.fixture(scope="module")
def adaptive(clips):
  """Clips alone, the adaptive weight, a start step and lazy R1."""
  train = training(
    GEN | dict(d_adversarial=1.0, d_r1=0.3),
    ramps=dict(g_adversarial=dict(name="delayed", steps=START)),
    weight="adaptive",
    r1_every=EVERY,
  )
  state = jax.jit(train.init)(KEY, clips, {})
  return state, jax.jit(train.step)


def at(state, step):
  return state._replace(step=jnp.int32(step))


def moved_by(state, side):
  """The gradient of the first step."""
  mean = optax.tree.get(state.opt[side], "mu")
  return jax.tree.map(lambda m: m / 0.1, mean)


def close(a, b):
  assert max(np.abs(x).max() for x in jax.tree.leaves(b)) > 1e-3
  check = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
  jax.tree.map(check, a, b)


def differs(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(np.abs(x - y).max() > 1e-4 for x, y in pairs)


def recon(params, x):
  return MODULE.apply({"params": params}, x)[0]


def judge(params, x):
  return Critic().apply({"params": params}, x)


def generator_loss(params, disc, x, l2, game, seen=0.0, weights=1.0):
  y = recon(params, x)
  fake = judge(disc, y)
  return (
    l2 * jnp.mean((y - x) ** 2)
    + seen * jnp.mean((weights * (y - x)) ** 2)
    + game * jnp.mean(jnp.log1p(jnp.exp(-fake)))
  )


def discriminator_loss(params, x, y, cost=1.0, r1=0.0, lecam=0.0):
  real, fake = judge(params, x), judge(params, y)
  slope = jax.vmap(jax.grad(lambda one: judge(params, one[None]).sum()))(x)
  above = jnp.maximum(real.mean() - AVERAGES["fake"], 0)
  below = jnp.maximum(AVERAGES["real"] - fake.mean(), 0)
  return (
    cost * jnp.mean(jnp.log1p(jnp.exp(-real)))
    + cost * jnp.mean(jnp.log1p(jnp.exp(fake)))
    + r1 * jnp.mean(jnp.sum(slope**2, axis=(1, 2, 3, 4)))
    + lecam * (above**2 + below**2)
  )


def test_a_joint_step_moves_the_net_by_the_sum_and_each_critic_by_its_own(
  whole, batch
):
  state, step = whole
  new, metrics = step(state, batch, KEY)
  gen, video, image = (state.params[s] for s in ("gen", "disc", "disc_image"))
  seen = state.frozen["perceptual"]

  @jax.jit
  def wanted():
    grad = jax.grad(generator_loss)
    parts = (
      grad(gen, video, batch["video"], 2.0, 0.5, 0.1, seen),
      grad(gen, image, batch["image"], 3.0, 0.4, 0.2, seen),
    )
    fakes = recon(gen, batch["video"]), recon(gen, batch["image"])
    grad = jax.grad(discriminator_loss)
    discs = (
      grad(video, batch["video"], fakes[0], 1.0, 0.3, 0.7),
      grad(image, batch["image"], fakes[1], 0.6),
    )
    return parts, discs

  parts, discs = wanted()
  close(moved_by(new, "gen"), jax.tree.map(jnp.add, *parts))
  assert np.abs(parts[1]["backbone"]["encoder"]["kernel"]).max() > 1e-2
  close(moved_by(new, "disc"), discs[0])
  close(moved_by(new, "disc_image"), discs[1])
  np.testing.assert_array_equal(new.frozen["perceptual"], seen)
  own = {k: v for k, v in metrics.items() if k in IMAGE}
  assert own.keys() == IMAGE.keys()
  terms = GEN | dict(loss_perceptual=0.1)
  total = sum(w * float(metrics[k]) for k, w in terms.items())
  assert float(metrics["loss"]) == pytest.approx(total, rel=1e-5)


def test_lecam_follows_the_mean_logits_of_steps_that_are_applied(whole, batch):
  state, step = whole
  new, metrics = step(state, batch, KEY)
  for kind, old in AVERAGES.items():
    want = 0.999 * old + 0.001 * metrics[f"logit_{kind}"]
    np.testing.assert_allclose(new.extra["lecam"]["disc"][kind], want, 1e-6)
    assert new.extra["lecam"]["disc"][kind] != old
  real = jnp.mean(judge(state.params["disc"], batch["video"]))
  np.testing.assert_allclose(metrics["logit_real"], real, rtol=1e-5)
  image = batch["image"].copy()
  image[0, 0, 0, 0, 0] = np.nan
  same, _ = step(state, batch | {"image": image}, KEY)
  for item in ("params", "opt", "ema"):
    a, b = getattr(same, item), getattr(state, item)
    jax.tree.map(np.testing.assert_array_equal, a, b)
  assert same.extra["lecam"]["disc"] == AVERAGES and same.extra["bad"] == 1


def test_micro_batches_give_the_averages_of_the_whole_batch(whole, batch):
  state, step = whole
  weights = GEN | DISC | IMAGE | dict(loss_perceptual=0.1)
  parts = jax.jit(training(weights, images=True, accumulate=2).step)
  (one, metrics), (two, same) = (f(state, batch, KEY) for f in (step, parts))
  for kind in AVERAGES:
    a, b = (s.extra["lecam"]["disc"][kind] for s in (one, two))
    np.testing.assert_allclose(a, b, rtol=1e-6)
  for name in ("d_r1", "d_adversarial", "image_loss_l2", "loss_perceptual"):
    np.testing.assert_allclose(same[name], metrics[name], rtol=1e-4)
  close(moved_by(two, "gen"), moved_by(one, "gen"))
  close(moved_by(two, "disc_image"), moved_by(one, "disc_image"))


def test_taking_turns_the_critic_sees_what_the_moved_generator_makes(clips):
  weights = GEN | dict(d_adversarial=1.0)
  turns, once = (
    training(weights, updates=u) for u in ("alternating", "simultaneous")
  )
  state = jax.jit(turns.init)(KEY, clips, {})
  new = jax.jit(turns.step)(state, clips, KEY)[0]
  x, disc = clips["video"], state.params["disc"]

  @jax.jit
  def wanted():
    gen = jax.grad(generator_loss)(state.params["gen"], disc, x, 2.0, 0.5)
    fakes = (recon(s.params["gen"], x) for s in (state, new))
    return gen, *(jax.grad(discriminator_loss)(disc, x, y) for y in fakes)

  gen, before, after = wanted()
  close(moved_by(new, "gen"), gen)
  close(moved_by(new, "disc"), after)
  assert differs(before, after)
  both = jax.jit(once.step)(state, clips, KEY)[0]
  close(moved_by(both, "gen"), gen)
  close(moved_by(both, "disc"), before)


def test_the_adaptive_weight_is_the_ratio_at_the_last_kernel(adaptive, clips):
  state, step = adaptive
  new, metrics = step(at(state, START), clips, KEY)
  gen, disc = state.params["gen"], state.params["disc"]

  @jax.jit
  def wanted():
    grad = jax.grad(generator_loss)
    return [grad(gen, disc, clips["video"], *w) for w in ((2.0, 0), (0, 1.0))]

  rec, game = wanted()
  ends = (t["backbone"]["decoder"]["head"]["kernel"] for t in (rec, game))
  top, bottom = map(np.linalg.norm, ends)
  ratio = top / (bottom + 1e-4)
  np.testing.assert_allclose(metrics["adaptive_weight"], ratio, rtol=1e-4)
  both = jax.tree.map(lambda a, b: a + 0.5 * ratio * b, rec, game)
  close(moved_by(new, "gen"), both)
  assert differs(both, rec)
  # Before its start the game does not move the generator.
  early, _ = step(at(state, START - 1), clips, KEY)
  close(moved_by(early, "gen"), rec)


def test_lazy_r1_comes_every_few_steps_that_many_times(adaptive, clips):
  state, step = adaptive
  x, disc = clips["video"], state.params["disc"]
  y = recon(state.params["gen"], x)
  grad = jax.jit(jax.grad(discriminator_loss))
  for n, cost in ((EVERY, EVERY * 0.3), (EVERY + 1, 0.0)):
    new, metrics = step(at(state, n), clips, KEY)
    close(moved_by(new, "disc"), grad(disc, x, y, 1.0, cost))
    assert (metrics["d_r1"] > 0) == (cost > 0)
  penalty = adversarial.r1(functools.partial(judge, disc), x)[1]
  metrics = step(at(state, EVERY), clips, KEY)[1]
  np.testing.assert_allclose(metrics["d_r1"], EVERY * penalty, rtol=1e-5)


@pytest.mark.parametrize("name", registry.names("tokenizers"))
def test_a_backbone_names_its_last_layer_for_the_adaptive_weight(name):
  file = importlib.import_module(f"magvit_jax.tokenizers.{name}")
  module = file.Backbone(**file.TINY)
  frames = module.stride[0] + tokenizers.alone(module)
  video = jax.ShapeDtypeStruct((1, frames, 16, 16, 3), jnp.float32)
  through = lambda m, v: m.decode(m.encode(v))  # noqa: E731
  init = functools.partial(module.init, method=through)
  params = jax.eval_shape(init, KEY, video)["params"]
  assert _gan.last_layer(params).shape[-1] % 3 == 0
  with error_names(
    ValueError, "stage.adversarial.weight", "adaptive", "decoder/head/…/kernel"
  ):
    _gan.last_layer({"encoder": params["encoder"]})


@pytest.mark.parametrize(
  "changes, named",
  [
    (dict(loss="hing"), ["loss", "hing", "adversarial.loss", "hinge"]),
    (dict(weight="adaptiv"), ["weight", "adaptiv"]),
    (dict(updates="both"), ["updates", "both"]),
    (dict(r1_every=0), ["stage.adversarial.r1_every", 0, 1]),
    (dict(lecam_decay=1.0), ["stage.adversarial.lecam_decay", 1.0]),
    (dict(lecam=0.9), ["lecam"]),
  ],
)
def test_wrong_arguments_name_value_and_cure(changes, named):
  with error_names((ValueError, TypeError), *named):
    _gan.Adversarial(**changes)


def test_images_and_their_losses_come_together(batch, clips):
  plain, joint = training(GEN | DISC), training(GEN | DISC | IMAGE, True)
  for train, given, named in (
    (plain, batch, ["image_loss_l2", "stage.weights"]),
    (joint, clips, ["stage.weights", "image_…", "stage.image_discriminator"]),
    (joint, batch, ["loss_perceptual", "stage.weights"]),
  ):
    state = jax.eval_shape(train.init, KEY, batch, {"perceptual": jnp.ones(3)})
    with error_names(KeyError, *named):
      jax.eval_shape(train.step, state, given, KEY)
