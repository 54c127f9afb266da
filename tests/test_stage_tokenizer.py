"""The tokenizer stage: one compiled GAN step, and what it refuses.

The ramps make one program serve all tests: at step 0 only the generator has
terms, from 50 on both sides have, from 100 on only the discriminator.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.discriminators import patch3d
from magvit_jax.quantizers import lfq
from magvit_jax.tokenizers import causal3d

GEN = dict(
  loss_l2=1.0, loss_entropy=0.1, loss_commitment=0.25, g_adversarial=0.1
)
FADES = dict(name="linear", start=1.0, stop=0.0, steps=100)
RAMPS = {
  **{term: FADES for term in GEN},
  "d_adversarial": dict(name="delayed", steps=50),
}
BACKBONE = {k: v for k, v in causal3d.TINY.items() if k != "latent_dim"}


def build(**changes):
  cfg = dict(
    name="tokenizer",
    backbone=dict(name="causal3d", **BACKBONE),
    quantizer=dict(name="lfq", **lfq.TINY),
    discriminator=dict(name="patch3d", **patch3d.TINY),
    weights=dict(**GEN, d_adversarial=1.0),
    ramps=RAMPS,
    optim=dict(name="adam", lr=3e-3, schedule="constant"),
    ema=dict(decay=0.99, warmup=True),
    dtype="float32",
  )
  return registry.build("stages", cfg | changes, steps=1000)


@pytest.fixture(scope="module")
def batch():
  line = np.linspace(-1, 1, 16, dtype=np.float32)
  frame = np.stack([line * k for k in (1.0, 0.5, -1.0)], -1)
  video = np.broadcast_to(frame, (2, 3, 16, 16, 3)).copy()
  zeros = np.zeros(2, np.int32)
  valid = np.ones(2, bool)
  return {"video": video, "label": zeros, "file": zeros, "valid": valid}


@pytest.fixture(scope="module")
def run(batch):
  """(state at a step, jitted step)."""
  stage = build()
  start = drawn(jax.eval_shape(stage.init, jax.random.key(0), batch, {}))
  step = jax.jit(stage.step)
  return lambda n: start._replace(step=jnp.int32(n)), step


def drawn(shapes):
  """A start as init would make it, without the long compilation of init."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    if x.ndim < 2:
      return np.full(x.shape, path[-1].key == "scale", x.dtype)
    fan_in = np.prod(x.shape[:-1])
    return rng.normal(0, fan_in**-0.5, x.shape).astype(x.dtype)

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  params = jax.tree_util.tree_map_with_path(draw, shapes.params)
  return zeros._replace(params=params, ema=params["gen"])


def same(a, b):
  leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in leaves)


def test_steps_reduce_the_loss(run, batch):
  at, step = run
  state, losses = at(0), []
  for _ in range(15):
    state, metrics = step(state, batch, jax.random.key(1))
    losses.append(float(metrics["loss_l2"]))
  assert losses[-1] < 0.7 * losses[0]
  assert int(state.step) == 15 and int(state.extra["bad"]) == 0


def test_each_side_is_moved_by_its_own_terms_only(run, batch):
  at, step = run
  for n, gen, disc in ((0, True, False), (60, True, True), (100, False, True)):
    before = at(n)
    after, metrics = step(before, batch, jax.random.key(1))
    assert same(after.params["gen"], before.params["gen"]) is not gen
    assert same(after.params["disc"], before.params["disc"]) is not disc
    assert (metrics["grad_norm_gen"] > 0) == gen
    assert (metrics["grad_norm_disc"] > 0) == disc


def test_the_loss_is_the_weighted_sum_of_the_terms(run, batch):
  at, step = run
  metrics = step(at(60), batch, jax.random.key(1))[1]
  want = sum(w * 0.4 * float(metrics[term]) for term, w in GEN.items())
  assert float(metrics["loss"]) == pytest.approx(want, rel=1e-5)
  assert metrics["loss_discriminator"] == metrics["d_adversarial"]


@pytest.mark.parametrize("n, decay", [(0, 0.1), (8, 0.5), (890, 0.99)])
def test_the_average_warms_up(run, batch, n, decay):
  at, step = run
  # Zeros in the average leave (1 - decay) of the new weights alone.
  before = at(n)
  before = before._replace(ema=jax.tree.map(jnp.zeros_like, before.ema))
  after, _ = step(before, batch, jax.random.key(1))
  jax.tree.map(
    lambda e, p: np.testing.assert_allclose(e, (1 - decay) * p, rtol=1e-4),
    after.ema,
    after.params["gen"],
  )


def test_a_step_that_is_not_finite_is_counted_and_not_applied(run, batch):
  at, step = run
  video = batch["video"].copy()
  video[1, 2, 3, 4, 0] = np.nan
  before = at(60)
  state, metrics = step(before, batch | {"video": video}, jax.random.key(1))
  assert not np.isfinite(metrics["loss_l2"])
  for item in ("params", "opt", "ema"):
    assert same(getattr(state, item), getattr(before, item)), item
  assert int(state.step) == 61 and int(state.extra["bad"]) == 1
  state, _ = step(
    state, batch | {"video": np.full_like(video, np.inf)}, jax.random.key(2)
  )
  assert int(state.step) == 62 and int(state.extra["bad"]) == 2
  state, _ = step(state, batch, jax.random.key(3))
  assert int(state.step) == 63 and int(state.extra["bad"]) == 0
  assert not same(state.params, before.params)


def test_what_is_predicted_comes_from_the_average(run, batch):
  stage, state = build(), run[0](0)
  nan = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), state.params)
  state = state._replace(params=nan)
  ids = jax.jit(stage.programs["encode"])(state, batch)["ids"]
  out = jax.jit(stage.programs["predict"])(state, batch)
  np.testing.assert_array_equal(out["ids"], ids)
  recon = jax.jit(stage.programs["decode"])(state, {"ids": ids})["video"]
  np.testing.assert_allclose(out["recon"], recon, atol=1e-5)
  assert np.abs(recon).max() <= 1
  assert stage.context["sizes"] == (4, 4) and ids.shape == (2, 2, 8, 8, 2)


@pytest.mark.parametrize(
  "changes, named",
  [
    (dict(weights=GEN), ["d_adversarial", "stage.weights"]),
    (
      dict(weights=dict(loss_l2=1.0, loss_entropy=1.0)),
      ["loss_commitment", "stage.weights"],
    ),
    (
      dict(weights=dict(**GEN, d_adversarial=1.0, loss_lpips=1.0)),
      ["stage.weights", "loss_lpips", "loss_l2"],
    ),
    (
      dict(discriminator=dict(name="none")),
      ["stage.weights", "g_adversarial"],
    ),
    (
      dict(weights=dict(**GEN, d_adversarial=1.0, loss_perceptual=0.1)),
      ["stage.weights", "loss_perceptual"],
    ),
    (
      dict(perceptual=dict(name="vgg")),
      ["perceptual.name", "vgg", "none, lpips, resnet50"],
    ),
    (
      dict(adversarial=dict(loss="hing")),
      ["stage.adversarial.loss", "hing", "hinge"],
    ),
    (
      dict(image_discriminator=dict(name="stylegan2d", width=8)),
      ["stage.image_discriminator", "none"],
    ),
    (dict(ramps=dict(loss_l1=FADES)), ["stage.ramps", "loss_l1", "loss_l2"]),
    (dict(dtype="float16"), ["stage.dtype", "float16", "bfloat16"]),
    (dict(quantizer=dict(name="lfg")), ["quantizers", "lfg", "lfq"]),
    (
      dict(backbone=dict(name="causal3d", widht=8)),
      ["tokenizers/causal3d", "widht", "width"],
    ),
    (dict(ema=dict(decay=0.9, warm=True)), ["warm"]),
    (dict(optim=dict(name="adam", lr=1.0, clips=1.0)), ["clips"]),
  ],
)
def test_wrong_configs_are_found_at_the_first_trace(batch, changes, named):
  with error_names((KeyError, TypeError, ValueError), *named):
    stage = build(**changes)
    key = jax.random.key(0)
    state = jax.eval_shape(stage.init, key, batch, {})
    jax.eval_shape(stage.step, state, batch, key)
