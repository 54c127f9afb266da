"""Contract of generators; conditions and losses of `masked`."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.decoding import schedules
from magvit_jax.decoding.maskgit import MaskGIT
from magvit_jax.generators import masked
from magvit_jax.tasks import TokenCondition
from magvit_jax.transformers import bert, modern

SIZES, GRID, CLASSES, BATCH = (5, 7), (3, 2, 2), 3, 8
# The ablation runs over the other transformer: both are covered by one more.
NETS = {"prefix": {"name": "bert", **bert.TINY}}
METHOD = MaskGIT(steps=4)
GUIDED = MaskGIT(steps=4, guidance=1.0)
# LLVM's optimisation is half of a compilation, and of no use here.
QUICK = {"xla_backend_optimization_level": 0}
jit = functools.partial(jax.jit, compiler_options=QUICK)
cases = pytest.mark.parametrize("condition", ["hard", "commit"])
contract = pytest.mark.parametrize(
  "name,condition",
  [(n, c) for n in registry.names("generators") for c in masked.CONDITIONS],
)


def clip(seed=0, b=BATCH):
  """Ids and a condition: nothing, a frame, two, all of them known."""
  rng = np.random.default_rng(seed)
  draw = lambda: rng.integers(0, SIZES, (b, *GRID, 2)).astype(np.int32)  # noqa: E731
  known = np.zeros((b, *GRID), bool)
  for i in range(b):
    known[i, : i % 4] = True
  ids, label = draw(), np.arange(b, dtype=np.int32) % (CLASSES + 1)
  task = np.arange(b, dtype=np.int32) % 2
  return ids, TokenCondition(draw(), known, label, task)


class Built:
  """A generator of TINY size, its functions jitted, its parameters noisy."""

  def __init__(self, name, condition):
    self.gen = build(name, condition)
    params = jit(self.gen.init)(jax.random.key(0), *clip())
    # Biases and scales start at zero: noise, so that nothing hides there.
    rng = np.random.default_rng(9)
    self.params = jax.tree.map(
      lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params
    )
    self.grad = jit(jax.value_and_grad(self.gen.loss, has_aux=True))
    self.score = jit(self.gen.score)
    self.sample = jit(self.gen.sample, static_argnums=3)

  def loss(self, ids, cond):
    return self.grad(self.params, ids, cond, jax.random.key(0))[0][0]


def build(name, condition, **extra):
  module = importlib.import_module(f"magvit_jax.generators.{name}")
  args = {**module.TINY, "name": name, "condition": condition, **extra}
  args["transformer"] = NETS.get(condition, args["transformer"])
  return registry.build("generators", args)


@functools.cache
def built(name="masked", condition="hard"):
  return Built(name, condition)


@contract
def test_samples_are_ids_and_compile_once(name, condition):
  own = built(name, condition)
  out = []
  for seed, key in [(0, 0), (0, 0), (0, 1), (1, 0)]:
    _, cond = clip(seed)
    ids = own.sample(own.params, cond, jax.random.key(key), METHOD)
    assert ids.shape == cond.ids.shape and ids.dtype == jnp.int32
    assert ((ids >= 0) & (ids < np.asarray(SIZES))).all()
    if condition == "hard":
      np.testing.assert_array_equal(ids[cond.known], cond.ids[cond.known])
    out.append(np.asarray(ids))
  np.testing.assert_array_equal(out[0], out[1])
  assert (out[0] != out[2]).any()
  assert own.sample._cache_size() == 1


@contract
def test_losses_are_finite_and_every_parameter_learns(name, condition):
  own = built(name, condition)
  ids, cond = clip()
  (loss, metrics), grads = own.grad(own.params, ids, cond, jax.random.key(0))
  assert loss.dtype == jnp.float32 and loss.shape == ()
  assert all(v.dtype == jnp.float32 for v in metrics.values())
  for grad in jax.tree.leaves(grads):
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
  uniform = np.log(SIZES).sum()
  assert abs(metrics["nats"] - uniform) < 1.5


@contract
def test_scores_are_sums_over_positions_that_are_not_given(name, condition):
  own = built(name, condition)
  ids, cond = clip()
  out = own.score(own.params, ids, cond, jax.random.key(0))
  scored = np.asarray(out["scored"])
  assert not (scored & cond.known).any()
  np.testing.assert_array_equal(out["positions"], scored.sum((1, 2, 3)))
  assert out["nats"][-1] == 0 and (out["nats"][:2] > 0).all()
  # What is neither shown nor scored does not count: the target's own ids do.
  other = np.where(scored[..., None], (ids + 1) % SIZES, ids)
  moved = own.score(own.params, other, cond, jax.random.key(0))
  assert (moved["nats"][:2] != out["nats"][:2]).all()


def test_one_decode_is_one_scan_over_the_steps_without_callbacks():
  own = built()
  jaxpr = jax.make_jaxpr(own.gen.sample, static_argnums=3)(
    own.params, clip()[1], jax.random.key(0), METHOD
  )
  loops = [e for e in jaxpr.eqns if e.primitive.name in ("scan", "while")]
  assert [e.params.get("length") for e in loops] == [METHOD.steps]
  assert "callback" not in str(jaxpr)


def test_masks_are_exact_per_example_and_among_candidates():
  candidates = np.ones((300, 64), bool)
  candidates[0], candidates[1], candidates[2, 8:] = False, False, False
  candidates[1, 5] = True
  mask, count = jax.jit(masked.draw_mask, static_argnums=2)(
    jax.random.key(0), candidates, "cosine"
  )
  mask = np.asarray(mask)
  np.testing.assert_array_equal(mask.sum(1), count)
  assert not (mask & ~candidates).any()
  assert count[0] == 0 and count[1] == 1 and 1 <= count[2] <= 8
  # The mean of cos(pi r / 2) is 2 / pi, its deviation 0.31.
  share = np.asarray(count[3:]) / 64
  np.testing.assert_allclose(share.mean(), 2 / np.pi, atol=4 * 0.31 / 17 + 0.01)
  assert len(set(np.asarray(count).tolist())) > 30
  same = np.asarray(count[3:]) == count[3]
  rows = mask[3:][same]
  assert len(np.unique(rows, axis=0)) == len(rows)  # own masks, too
  np.testing.assert_allclose(mask[3:].mean(0), share.mean(), atol=5 * 0.5 / 17)


@cases
def test_what_the_transformer_sees_is_the_rule_written_out(condition):
  ids, cond = clip()
  hard = condition == "hard"
  mask = np.random.default_rng(1).random(cond.known.shape) < 0.5
  if hard:
    mask &= ~cond.known
  want = ids.copy()
  for at in np.ndindex(*mask.shape):
    if mask[at]:
      want[at] = cond.ids[at] if cond.known[at] else SIZES
    elif cond.known[at] and hard:
      want[at] = cond.ids[at]
  got = masked.visible(ids, cond, mask, jnp.asarray(SIZES), hard)
  np.testing.assert_array_equal(got, want)


@contract
def test_where_the_loss_looks(name, condition):
  """The condition counts where known; the clip there except under 'hard'."""
  own = built(name, condition)
  ids, cond = clip()
  loss = own.loss(ids, cond)
  known = cond.known[..., None]
  elsewhere = np.where(known, cond.ids, (cond.ids + 1) % SIZES)
  assert own.loss(ids, cond._replace(ids=elsewhere)) == loss
  there = np.where(known, (cond.ids + 1) % SIZES, cond.ids)
  assert own.loss(ids, cond._replace(ids=there)) != loss
  under = np.where(known, (ids + 1) % SIZES, ids)
  assert (own.loss(under, cond) == loss) == (condition == "hard")


@contract
def test_task_and_label_are_looked_at(name, condition):
  own = built(name, condition)
  ids, cond = clip()
  cases = [
    cond,
    cond._replace(task=1 - cond.task),
    cond._replace(label=(cond.label + 1) % (CLASSES + 1)),
  ]
  nats = [
    np.asarray(own.score(own.params, ids, c, jax.random.key(0))["nats"])
    for c in cases
  ]
  some = cond.known.mean((1, 2, 3)) < 1
  assert (nats[0] != nats[1])[some].all()
  assert (nats[0] != nats[2])[some].all()


@cases
def test_by_default_commit_has_loss_everywhere_and_hard_where_masked(condition):
  """With all weights zero but a bias, logits are known and equal everywhere."""
  own = built("masked", condition)
  ids, cond = clip()
  params = jax.tree.map(np.zeros_like, own.params)
  bias = np.random.default_rng(0).normal(size=5).astype(np.float32)
  params["tokens"]["bias_0"] = bias
  (loss, metrics), _ = own.grad(params, ids, cond, jax.random.key(0))
  nats = np.log(np.exp(bias).sum()) - bias[ids[..., 0]] + np.log(7)
  everywhere = abs(loss - nats.mean()) < 1e-5
  assert everywhere == (condition == "commit")
  assert 0.1 < metrics["masked"] < 0.9


@cases
def test_each_part_of_the_loss_is_where_it_says(condition):
  """Losses of logits that are known everywhere, written out by mask."""
  own = built("masked", condition)
  ids, cond = clip()
  params = jax.tree.map(np.zeros_like, own.params)
  bias = np.random.default_rng(0).normal(size=5).astype(np.float32)
  params["tokens"]["bias_0"] = bias
  key = jax.random.key(3)
  made = [build("masked", condition, loss=loss).loss for loss in masked.LOSSES]
  got = jit(lambda p: [loss(p, ids, cond, key)[0] for loss in made])(params)
  maskable = ~cond.known if condition == "hard" else np.ones_like(cond.known)
  mask, _ = masked.draw_mask(
    jax.random.split(key, 3)[0], maskable.reshape(BATCH, -1), "cosine"
  )
  mask = np.asarray(mask).reshape(maskable.shape)
  where = dict(
    mask=mask & ~cond.known,
    refine=mask & cond.known,
    recons=maskable & ~mask,
  )
  nats = np.log(np.exp(bias).sum()) - bias[ids[..., 0]] + np.log(7)
  for (loss, parts), value in zip(masked.LOSSES.items(), got, strict=True):
    on = sum(where[part].astype(int) for part in parts)
    assert on.max() == 1
    rows = [nats[i][on[i] > 0].mean() for i in range(BATCH) if on[i].any()]
    np.testing.assert_allclose(value, np.mean(rows), rtol=1e-5, err_msg=loss)
  assert (got[0] == got[1]) == (condition == "hard")  # nothing to refine


def test_a_trace_ends_with_the_sample_and_follows_the_table():
  """Under COMMIT all positions are decoded, whatever is known."""
  own = built("masked", "commit")
  _, cond = clip()
  trace = jit(own.gen.trace, static_argnums=3)
  steps = trace(own.params, cond, jax.random.key(0), METHOD)
  ids = own.sample(own.params, cond, jax.random.key(0), METHOD)
  assert steps.ids.shape == (METHOD.steps, *ids.shape)
  np.testing.assert_array_equal(steps.ids[-1], ids)
  counts = np.tile(schedules.counts("cosine", 12, METHOD.steps), (BATCH, 1))
  np.testing.assert_array_equal(steps.unknown.sum((2, 3, 4)).T, counts)


@pytest.mark.parametrize("sizes", [(1024,), (512, 512), (64, 4096), (8, 8, 4)])
@pytest.mark.parametrize("net", ["modern", "bert"])
def test_any_split_into_factors_fits_either_transformer(sizes, net):
  tiny = {"modern": modern.TINY, "bert": bert.TINY}[net]
  gen = masked.make(
    **{**masked.TINY, "sizes": sizes, "transformer": {"name": net, **tiny}}
  )
  shape = (BATCH, *GRID, len(sizes))
  ids = jax.ShapeDtypeStruct(shape, np.int32)
  _, cond = clip()
  cond = cond._replace(ids=ids)
  key = jax.random.key(0)
  params = jax.eval_shape(gen.init, key, ids, cond)
  loss, _ = jax.eval_shape(gen.loss, params, ids, cond, key)
  assert loss.shape == ()
  out = jax.eval_shape(
    lambda p, c, k: gen.sample(p, c, k, GUIDED), params, cond, key
  )
  assert out.shape == shape and out.dtype == np.int32


def test_commit_may_refine_what_is_known():
  own = built("masked", "commit")
  _, cond = clip()
  ids = own.sample(own.params, cond, jax.random.key(0), METHOD)
  assert (ids[cond.known] != cond.ids[cond.known]).any()
  other = cond._replace(ids=(cond.ids + 1) % SIZES)
  moved = own.sample(own.params, other, jax.random.key(0), METHOD)
  assert (moved[1:] != ids[1:]).any()  # and it is looked at
  np.testing.assert_array_equal(moved[0], ids[0])


def test_guidance_moves_labelled_examples_and_runs_one_batch_when_off():
  own, key = built(), jax.random.key(0)
  _, cond = clip()
  free = cond._replace(label=np.full(BATCH, CLASSES, np.int32))
  for shown, same in [(cond, False), (free, True)]:
    plain = own.sample(own.params, shown, key, METHOD)
    guided = own.sample(own.params, shown, key, GUIDED)
    assert (plain == guided).all() == same
  flops = [
    own.sample.lower(own.params, cond, key, m).cost_analysis()["flops"]
    for m in (METHOD, GUIDED)
  ]
  assert flops[1] > 1.7 * flops[0]


def test_smoothing_and_label_dropout_enter_the_loss():
  """Smoothing mixes in a uniform target; dropout hides the label."""
  ids, cond = clip()
  gen = build("masked", "hard", smoothing=0.5, label_dropout=0.999)
  loss = jit(gen.loss)
  params, key = built().params, jax.random.key(0)
  smoothed, metrics = loss(params, ids, cond, key)
  assert smoothed != metrics["nats"]
  hidden = cond._replace(label=np.full(BATCH, CLASSES, np.int32))
  assert loss(params, ids, hidden, key)[0] == smoothed
  assert built().loss(ids, hidden) != built().loss(ids, cond)
  uniform = tuple(jnp.zeros((1, size)) for size in SIZES)
  np.testing.assert_allclose(
    masked.spread(uniform), [np.log(SIZES).sum()], rtol=1e-6
  )


def lesson(rng, b=BATCH):
  """Task 0: every id is the label. Task 1: frames repeat the first one."""
  label = rng.integers(0, CLASSES, b).astype(np.int32)
  task = np.arange(b, dtype=np.int32) % 2
  frame = rng.integers(0, 5, (b, 1, 2, 2, 2)).astype(np.int32)
  copied = np.broadcast_to(frame, (b, *GRID, 2))
  pick = (task == 1)[:, None, None, None, None]
  ids = np.where(pick, copied, label[:, None, None, None, None])
  known = np.zeros((b, *GRID), bool)
  known[task == 1, 0] = True
  shown = np.where(task == 1, CLASSES, label).astype(np.int32)
  return ids.astype(np.int32), TokenCondition(ids, known, shown, task)


def test_a_few_hundred_updates_teach_labels_tasks_and_conditions():
  own, params = built(), built().params
  tx = optax.adam(1e-2)

  @jax.jit
  def update(params, opt, grads):
    updates, opt = tx.update(grads, opt)
    return optax.apply_updates(params, updates), opt

  rng, opt = np.random.default_rng(0), tx.init(params)
  for i in range(400):
    _, grads = own.grad(params, *lesson(rng), jax.random.key(i))
    params, opt = update(params, opt, grads)
  ids, cond = lesson(rng)
  got = own.sample(params, cond, jax.random.key(0), METHOD)
  assert np.mean(got == ids) > 0.9
  got = own.sample(params, cond, jax.random.key(0), GUIDED)
  # Guidance goes towards the label: away from it, half of the batch fails.
  assert np.mean(got == ids) > 0.75


@pytest.mark.parametrize(
  "args,named",
  [
    (dict(sizes=()), ["masked", "sizes", "()"]),
    (dict(grid=(2, 2)), ["grid", "(2, 2)"]),
    (dict(tasks=0), ["masked", "tasks", 0]),
    (dict(condition="soft"), ["condition", "soft", "commit"]),
    (dict(loss="refine"), ["loss", "refine", "mask+refine"]),
    (dict(schedule="linear"), ["schedule", "linear"]),
    (dict(label_dropout=1.0), ["label_dropout", 1.0]),
  ],
)
def test_arguments_that_do_not_fit_are_refused(args, named):
  with error_names(ValueError, *named):
    masked.make(**{**masked.TINY, **args})


def test_ids_of_another_grid_are_refused():
  own = built()
  ids, cond = clip()
  with error_names(ValueError, "(8, 2, 2, 2, 2)", "[b, 3, 2, 2, 2]"):
    own.gen.loss(own.params, ids[:, :2], cond, jax.random.key(0))
