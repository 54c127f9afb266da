"""Stage `generator`: frozen weights, counts, the guard, tokens, prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny_generator as tiny
from helpers.errors import error_names
from magvit_jax.checkpoints import checkpointer
from magvit_jax.stages import _generator_model, _prediction_eval
from magvit_jax.tasks import tables

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def stage():
  return tiny.stage()


@pytest.fixture(scope="module")
def state(stage):
  frozen = {"tokenizer": tiny.tokenizer_params()}
  return jax.jit(stage.init)(KEY, tiny.batch(), frozen)


@pytest.fixture(scope="module")
def step(stage):
  return jax.jit(stage.step)


@pytest.fixture(scope="module")
def predict(stage):
  return jax.jit(stage.programs["predict"])


@pytest.fixture(scope="module")
def ids(stage, state):
  return np.asarray(
    jax.jit(stage.programs["encode"])(state, tiny.batch())["ids"]
  )


def net(**changes):
  args = dict(
    tokenizer=tiny.TOKENIZER,
    shape=tiny.SHAPE,
    classes=tiny.CLASSES,
    generator=tiny.STAGE["generator"],
    tasks=tiny.TASKS,
    dtype="float32",
  )
  return _generator_model.make_net(**{**args, **changes})


def test_training_lowers_the_loss_and_keeps_the_tokenizer(state, step):
  losses, new = [], state
  for _ in range(12):
    new, metrics = step(new, tiny.batch(), KEY)
    losses.append(float(metrics["loss"]))
  assert losses[-1] < losses[0] - 0.05
  assert int(new.step) == 12 and int(new.extra["bad"]) == 0
  jax.tree.map(np.testing.assert_array_equal, new.frozen, state.frozen)
  moved = [
    np.abs(a - b).max()
    for a, b in zip(
      jax.tree.leaves(new.ema), jax.tree.leaves(new.params["gen"]), strict=True
    )
  ]
  assert max(moved) > 0


def test_counts_are_the_histogram_of_the_ids(state, step, ids):
  new, _ = step(state, tiny.batch(), KEY)
  new, _ = step(new, tiny.batch(), KEY)
  for f, count in enumerate(new.extra["counts"]):
    expected = 2 * np.bincount(ids[..., f].ravel(), minlength=len(count))
    np.testing.assert_array_equal(count, expected)


def test_it_learns_in_parts_from_rounded_weights(state, ids):
  stage = tiny.stage(accumulate=3, param_dtype="bfloat16")
  assert stage.accumulate == 3
  step, losses, new = jax.jit(stage.step), [], state
  for _ in range(12):
    new, metrics = step(new, tiny.batch(), KEY)
    losses.append(float(metrics["loss"]))
  assert losses[-1] < losses[0] - 0.05 and int(new.extra["bad"]) == 0
  for f, count in enumerate(new.extra["counts"]):
    expected = 12 * np.bincount(ids[..., f].ravel(), minlength=len(count))
    np.testing.assert_array_equal(count, expected)
  # Weights, averages and moments are kept whole.
  kept = jax.tree.leaves((new.params, new.ema, new.opt))
  floats = [x for x in kept if x.dtype != jnp.int32]
  assert {x.dtype for x in floats} == {jnp.dtype("float32")}
  kernel = max(jax.tree.leaves(new.params), key=lambda x: x.size)
  rounded = kernel.astype(jnp.bfloat16).astype(jnp.float32)
  assert np.mean(kernel != rounded) > 0.9


def test_a_step_that_is_not_finite_is_not_applied(state, step):
  broken = jax.tree.map(lambda p: p.at[0].set(jnp.nan), state.params)
  new, metrics = step(state._replace(params=broken), tiny.batch(), KEY)
  assert not np.isfinite(metrics["loss"])
  assert int(new.extra["bad"]) == 1 and int(new.step) == 1
  for kept in ("ema", "opt"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(new, kept), getattr(state, kept)
    )
  assert all(float(count.sum()) == 0 for count in new.extra["counts"])


def test_the_tokenizer_is_an_argument_and_no_constant(stage, state):
  big = max(leaf.size for leaf in jax.tree.leaves(state.frozen))
  for run, args in [
    (stage.step, (state, tiny.batch(), KEY)),
    (stage.programs["predict"], (state, tiny.batch())),
  ]:
    jaxpr = jax.make_jaxpr(run)(*args)
    assert all(np.size(const) < big for const in jaxpr.consts)
    marked = jax.tree.map(lambda p: jnp.full_like(p, 0.71828), state.frozen)
    args = (state._replace(frozen=marked), *args[1:])
    assert "0.71828" not in jax.jit(run).lower(*args).as_text()


def test_ids_serve_as_well_as_the_video_they_come_from(state, step, ids):
  records = {k: v for k, v in tiny.batch().items() if k != "video"}
  new, metrics = step(state, tiny.batch(), KEY)
  same, same_metrics = step(state, {**records, "ids": ids}, KEY)
  for name in metrics:
    np.testing.assert_allclose(same_metrics[name], metrics[name], rtol=1e-5)
  for a, b in zip(new.extra["counts"], same.extra["counts"], strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_condition_clip_has_the_ids_of_the_clip_where_known(state):
  """What lets a causal tokenizer encode once: prefix equality."""
  task = jnp.array([0, 1, 1])
  assert net().needs == ()
  run = jax.jit(
    lambda frozen, batch: [
      _generator_model.tokens(net()._replace(needs=needs), frozen, batch, task)
      for needs in ((), ("frame_prediction",))
    ]
  )
  (ids, once), (again, twice) = run(state.frozen, tiny.batch())
  np.testing.assert_array_equal(ids, again)
  known = np.asarray(once.known)
  np.testing.assert_array_equal(known.mean((1, 2, 3)) > 0, [False, True, True])
  np.testing.assert_array_equal(once.ids[known], twice.ids[known])
  assert (np.asarray(once.ids) != np.asarray(twice.ids)).any()
  # Frame prediction is not told the label; class_cond is.
  np.testing.assert_array_equal(once.label, [0, tiny.CLASSES, tiny.CLASSES])


def test_nothing_is_encoded_where_no_task_is_given_ids(state):
  batch = {"label": jnp.array([2, 0, 1])}
  alone = net(tasks={"class_cond": {"weight": 1.0}})
  cond = _generator_model.condition(alone, {}, batch, jnp.zeros(3, int))
  assert not cond.known.any() and cond.ids.shape[1:4] == alone.grid
  np.testing.assert_array_equal(cond.label, batch["label"])
  # Others need the clip.
  task = jnp.array([0, 1, 1])
  with error_names(KeyError, "video"):
    _generator_model.condition(net(), state.frozen, batch, task)


def test_ids_cannot_serve_a_task_that_needs_its_condition_clip(ids):
  other = net()._replace(needs=("frame_prediction",))
  batch = {"ids": jnp.asarray(ids), "label": jnp.zeros(3, int)}
  with error_names(ValueError, "frame_prediction"):
    _generator_model.tokens(other, {}, batch, jnp.zeros(3, int))


def test_a_prediction_does_not_depend_on_its_neighbours(state, predict):
  order = np.array([2, 0, 1])
  batch = tiny.batch()
  here = predict(state, batch)
  there = predict(state, {k: v[order] for k, v in batch.items()})
  for name in ("ids_predicted", "positions", "ids"):
    np.testing.assert_array_equal(there[name], here[name][order])
  for name in ("nats", "predicted"):
    np.testing.assert_allclose(
      there[name], here[name][order], rtol=1e-4, atol=1e-4
    )


def test_each_clip_has_keys_of_its_own(state, predict):
  """One clip at three places of the list: other masks, other futures."""
  batch = {k: np.stack([v[0]] * len(v)) for k, v in tiny.batch().items()}
  same = predict(state, batch)
  places = predict(state, {**batch, "index": np.array([5, 6, 7], np.int32)})
  for name in ("nats", "positions", "ids_predicted"):
    alike, rows = np.asarray(same[name]), np.asarray(places[name])
    np.testing.assert_array_equal(alike, np.stack([alike[0]] * 3))
    assert all((rows[i] != rows[i - 1]).any() for i in range(3)), name


def test_prediction_keeps_the_given_and_scores_the_rest(state, step, predict):
  trained, _ = step(state, tiny.batch(), KEY)
  out = jax.device_get(predict(trained, tiny.batch()))
  unknown = out["unknown"]
  assert unknown.mean() == pytest.approx(1 - 1 / unknown.shape[1])
  np.testing.assert_array_equal(
    out["ids_predicted"][~unknown], out["ids"][~unknown]
  )
  np.testing.assert_array_equal(
    out["ids_repeat"], np.repeat(out["ids"][:, :1], unknown.shape[1], 1)
  )
  np.testing.assert_array_equal(out["still"][:, 3], tiny.batch()["video"][:, 0])
  assert out["hidden"].tolist() == [[False] + [True] * 4] * 3
  # The unigram's nats at some positions lie between its extremes.
  low, high = 0.0, 0.0
  for count in trained.extra["counts"]:
    nats = -np.log((count + 1) / (count + 1).sum())
    low, high = low + nats.min(), high + nats.max()
  mean = out["nats_unigram"] / out["positions"]
  assert ((low <= mean) & (mean <= high)).all()


def test_the_unigram_by_hand():
  counts = (jnp.array([3.0, 0.0, 1.0]), jnp.array([0.0, 2.0]))
  ids = jnp.array([[0, 1], [2, 0]]).reshape(1, 1, 1, 2, 2)
  first, second = np.log([4 / 7, 3 / 4]), np.log([2 / 7, 1 / 4])
  both = _prediction_eval._unigram(counts, ids, jnp.ones((1, 1, 1, 2), bool))
  np.testing.assert_allclose(both, [-(first.sum() + second.sum())], rtol=1e-6)
  only = jnp.array([True, False]).reshape(1, 1, 1, 2)
  one = _prediction_eval._unigram(counts, ids, only)
  np.testing.assert_allclose(one, [-first.sum()], rtol=1e-6)


def test_context_tells_what_was_built(stage):
  context = stage.context
  assert context["tasks"] == ("class_cond", "frame_prediction")
  assert context["given"] == {"class_cond": 0, "frame_prediction": 1}
  assert context["labelled"] == {"class_cond": True, "frame_prediction": False}
  assert context["grid"] == tuple(context["latent_shape"](*tiny.SHAPE[:3])[:3])


def test_a_task_without_weight_is_never_drawn():
  tasks = {**tiny.TASKS, "frame_prediction": dict(frames=1, weight=0.0)}
  drawn = _generator_model.draw_task(KEY, net(tasks=tasks), (200,))
  assert set(np.asarray(drawn).tolist()) == {0}
  both = _generator_model.draw_task(KEY, net(), (200,))
  assert 60 < np.asarray(both).sum() < 140


def test_bad_arguments_are_named():
  tasks = {"class_cond": dict(weight=-1.0)}
  with error_names(ValueError, "stage.tasks", "{'class_cond': -1.0}"):
    net(tasks=tasks)
  tasks = {"frame_prediction": dict(frames=2, weight=1.0)}
  with error_names(ValueError, "stage.tasks.frame_prediction", 2, "1, 3"):
    net(tasks=tasks)
  with error_names(KeyError, "stage.weights", "loss_token", "loss_tokens"):
    bad = tiny.stage(weights=dict(loss_tokens=1.0, loss_token=1.0))
    state = jax.eval_shape(bad.init, KEY, tiny.batch(), {})
    frozen = {"tokenizer": tiny.tokenizer_params()}
    jax.eval_shape(bad.step, state._replace(frozen=frozen), tiny.batch(), KEY)


def test_every_part_of_a_task_is_reachable_from_the_stage():
  assert tables.given_frames(_generator_model.table_of(net().tables, 1)) == 1
  assert _prediction_eval.prediction_task(net()) == 1
  told = dict(class_cond_frame_prediction=dict(frames=1, weight=1.0))
  others = dict(interpolation=dict(weight=1.0), **tiny.TASKS, **told)
  assert net(tasks=others).names[2] == "frame_prediction"
  assert _prediction_eval.prediction_task(net(tasks=others)) == 2
  only = net(tasks={"class_cond": dict(weight=1.0)})
  assert _prediction_eval.prediction_task(only) is None
  assert checkpointer.ITEMS[-1] == "extra"  # where the counts are saved
