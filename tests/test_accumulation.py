"""Micro-batches and rounded weights, in the stages and by themselves."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.errors import error_names
from helpers.tokenizer_training import Training
from magvit_jax import optim
from magvit_jax.quantizers import lfq, vq
from magvit_jax.stages import _accumulation, _update, tokenizer
from magvit_jax.tokenizers import Tokenizer

KEY = jax.random.key(3)
TERMS = dict(
  loss_l2=1.0, loss_commitment=0.25, g_adversarial=0.5, d_adversarial=1.0
)


class Pointwise(nn.Module):
  """A backbone whose latents see one pixel."""

  width: int

  def setup(self):
    self.down, self.up = nn.Dense(self.width), nn.Dense(3)

  def encode(self, video):
    return self.down(video)

  def decode(self, codes):
    return self.up(codes)


class Critic(nn.Module):
  """Logits of single pixels."""

  @nn.compact
  def __call__(self, video):
    return nn.Dense(1)(nn.tanh(nn.Dense(8)(video)))


def training(quantizer, weights, critic=None, **changes):
  """The functions of a step over nets that compile in a moment."""
  return Training(
    tokenizer.Recipe(
      Tokenizer(Pointwise(quantizer.dim), quantizer),
      tokenizer.modalities(critic),
      weights,
      {},
      optim.make(100, name="adam", lr=0.02, schedule="constant"),
      dict(decay=0.9, warmup=True),
      **changes,
    )
  )


def videos(b=4):
  """Clips that differ much from each other."""
  noise = np.random.default_rng(0).normal(size=(b, 2, 4, 4, 3))
  shift = np.linspace(-2, 2, b)[:, None, None, None, None]
  return {"video": (0.3 * noise + shift).astype(np.float32)}


@pytest.fixture(scope="module")
def gan():
  """A GAN with LFQ: (state, its step in one and in two parts)."""
  weights = dict(TERMS, loss_entropy=0.0)
  quantizer = lfq.Quantizer(bits=6, temperature=1.0)
  whole, parts = (
    training(quantizer, weights, Critic(), accumulate=k) for k in (1, 2)
  )
  state = jax.jit(whole.init)(KEY, videos(), {})
  return state, jax.jit(whole.step), jax.jit(parts.step)


def test_means_over_examples_have_the_gradient_of_the_whole_batch(gan):
  state, whole, parts = gan
  new, metrics = whole(state, videos(), KEY)
  same, same_metrics = parts(state, videos(), KEY)
  # The first moment of the first step is the gradient times 1 - b1.
  for side in ("gen", "disc"):
    mean, moment = (optax.tree.get(s.opt[side], "mu") for s in (same, new))
    assert max(np.abs(m).max() for m in jax.tree.leaves(moment)) > 1e-3
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
      mean,
      moment,
    )
  for name in (*TERMS, "loss", "grad_norm_gen", "grad_norm_disc"):
    np.testing.assert_allclose(same_metrics[name], metrics[name], rtol=1e-4)


def test_batch_entropy_is_that_of_a_micro_batch_and_never_more(gan):
  state, *steps = gan
  whole, parts = (step(state, videos(), KEY)[1] for step in steps)
  # Concave: the entropy of a mean is at least the mean of the entropies.
  assert whole["entropy_batch"] > parts["entropy_batch"] + 0.05
  # What is a mean over latents stays, so the term is the higher for it.
  token = "entropy_token"
  np.testing.assert_allclose(parts[token], whole[token], rtol=1e-4)
  assert parts["loss_entropy"] > whole["loss_entropy"] + 0.05
  # It is the mean of what each micro-batch has by itself.
  alone = [
    batch_entropy(state, {"video": videos()["video"][k::2]}) for k in (0, 1)
  ]
  np.testing.assert_allclose(parts["entropy_batch"], np.mean(alone), rtol=1e-4)


def batch_entropy(state, batch):
  """The batch entropy of the latents of a batch."""
  down = state.params["gen"]["backbone"]["down"]
  z = batch["video"] @ down["kernel"] + down["bias"]
  return (
    lfq.Quantizer(bits=6, temperature=1.0).apply({}, z).aux["entropy_batch"]
  )


def test_a_part_that_is_not_finite_stops_the_step(gan):
  state, _, step = gan
  batch = videos()
  batch["video"][3, 1, 2, 3, 0] = np.inf
  new, _ = step(state, batch, KEY)
  assert int(new.extra["bad"]) == 1 and int(new.step) == 1
  jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


def test_running_codebooks_get_the_sums_of_the_whole_batch():
  quantizer = vq.Quantizer(size=8, width=3, kmeans=0, restart=0.0)
  weights = dict(loss_l2=1.0, loss_commitment=0.25)
  books = []
  for parts in (1, 4):
    train = training(quantizer, weights, accumulate=parts)
    batch = videos()
    state = jax.jit(train.init)(KEY, batch, {})
    new, _ = jax.jit(train.step)(state, batch, KEY)
    books.append(new.params["gen"]["quantizer"])
    assert all("buffer_" in name for name in books[-1])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *books
  )


def test_sums_are_added_picks_are_the_last_and_keys_differ():
  def function(batch, key):
    x = batch["x"]
    draw = jax.random.uniform(key)
    stats = {"level_0": {"count": jnp.sum(x), "pick_rows": x}, "draw": draw}
    grads = {"w": jnp.mean(x).astype(jnp.bfloat16)}
    return _accumulation.StepOutput(grads, {"mean": jnp.mean(x)}, stats)

  batch = {"x": jnp.arange(6.0)}
  run = jax.jit(_accumulation.run, static_argnums=(0, 3))
  out = run(function, batch, KEY, 3)
  assert out.grads["w"] == 2.5 and out.grads["w"].dtype == jnp.float32
  assert out.metrics["mean"] == 2.5
  assert out.stats["level_0"]["count"] == 15.0
  # Part 2 has the rows 2 and 5.
  assert out.stats["level_0"]["pick_rows"].tolist() == [2.0, 5.0]
  draws = jax.vmap(jax.random.uniform)(jax.random.split(KEY, 3))
  np.testing.assert_allclose(out.stats["draw"], draws.sum(), rtol=1e-6)
  alone = run(function, batch, KEY, 1)
  np.testing.assert_allclose(alone.stats["draw"], jax.random.uniform(KEY))


def test_each_block_of_rows_has_its_share_of_every_part():
  """A device holds a block of rows; no row leaves it."""
  parts, devices = 3, 4
  rows = np.arange(24)
  split = _accumulation.split({"i": jnp.asarray(rows)}, parts)["i"]
  assert split.shape == (parts, 8)
  # The second axis is the one that lies over the devices.
  after = np.split(np.asarray(split), devices, axis=1)
  for block, mine in zip(np.split(rows, devices), after, strict=True):
    assert set(mine.ravel()) == set(block)


@pytest.mark.parametrize("parts", [3, 0, -1])
def test_parts_that_do_not_divide_the_batch_are_named(parts):
  with error_names(ValueError, "stage.accumulate", parts, 4):
    _accumulation.split(videos(), parts)


def test_a_step_reads_rounded_matrices_and_moves_the_whole_ones():
  quantizer = lfq.Quantizer(bits=4, temperature=1.0)
  weights = dict(loss_l2=1.0, loss_commitment=0.0, loss_entropy=0.0)
  plain = training(quantizer, weights)
  low = training(quantizer, weights, param_dtype="bfloat16")
  batch = videos()
  state = jax.jit(plain.init)(KEY, batch, {})
  copy = _update.working_copy(state.params, "bfloat16")
  back = jax.tree.map(lambda x: x.astype(jnp.float32), copy)
  run = jax.jit(plain.step), jax.jit(low.step)
  of_copy = run[0](state._replace(params=back), batch, KEY)[1]
  new, metrics = run[1](state, batch, KEY)
  np.testing.assert_allclose(metrics["loss_l2"], of_copy["loss_l2"], rtol=1e-5)
  exact = run[0](state, batch, KEY)[1]["loss_l2"]
  assert abs(metrics["loss_l2"] - exact) > 1e-6
  # Steps far below a bfloat16's last place add up in the weights.
  tiny_lr = dict(name="adam", lr=1e-5, schedule="constant")
  recipe = dataclasses.replace(
    plain.recipe, tx=optim.make(100, **tiny_lr), param_dtype="bfloat16"
  )
  slow = Training(recipe)
  new, _ = jax.jit(slow.step)(state, batch, KEY)
  before, after = (s.params["gen"]["backbone"]["up"] for s in (state, new))
  moved = np.abs(after["kernel"] - before["kernel"])
  np.testing.assert_allclose(moved, 1e-5, rtol=0.05)


def test_the_working_copy_leaves_codebooks_and_vectors_alone():
  params = {
    "gen": {
      "backbone": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
      "quantizer": {"codes": jnp.ones((4, 2))},
    },
    "disc": {"kernel": jnp.ones((2, 2)), "buffer_table": jnp.ones((2, 2))},
  }
  assert _update.working_copy(params, "float32") is params
  copy = _update.working_copy(params, "bfloat16")
  low = jnp.dtype("bfloat16")
  assert copy["gen"]["backbone"]["kernel"].dtype == low
  assert copy["disc"]["kernel"].dtype == low
  rest = [
    copy["gen"]["backbone"]["bias"],
    copy["gen"]["quantizer"]["codes"],
    copy["disc"]["buffer_table"],
  ]
  assert all(x.dtype == jnp.float32 for x in rest)


def test_an_unknown_dtype_is_told_the_known_ones():
  with error_names(ValueError, "stage.param_dtype", "float16"):
    training(lfq.Quantizer(bits=4), {}, param_dtype="float16")
