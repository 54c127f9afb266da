"""COMMIT (MAGVIT, arXiv:2212.05199) against its rule written out, by task.

A position of the clip is shown as it is, unless it is masked: then it holds
the token of the padded condition clip where that is condition, and MASK where
it is not. The transformer is replaced by one that tells what it was shown.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax import registry, transformers
from magvit_jax.decoding import schedules
from magvit_jax.decoding.maskgit import MaskGIT
from magvit_jax.generators import masked
from magvit_jax.tasks import TokenCondition, tables

SHAPE, GRID, SIZES = (9, 16, 16, 3), (3, 4, 4), (12, 8)
N = 48  # positions
TASKS = [name for name in registry.names("tasks") if name != "free_mask"]
METHOD = MaskGIT(steps=5, choice_temperature=2.0)
KEY = jax.random.key(4)


class Told:
  """In place of a transformer: predicts a function of what it is shown."""

  sizes, classes = SIZES, 2

  def __init__(self):
    self.shown = None

  def apply(self, params, shown, label, task, *, key=None):
    self.shown = shown
    answer = answers(shown)
    return tuple(
      30 * jax.nn.one_hot(answer[..., f], size) + jnp.arange(size) * 0.1
      for f, size in enumerate(SIZES)
    )


def answers(shown):
  """The id that is predicted where an id, or MASK, is shown."""
  return (3 * shown + 1) % np.asarray(SIZES)


@pytest.fixture(scope="module")
def batch():
  """An example of each task; ids are even, condition ids odd."""
  rng = np.random.default_rng(0)
  known = np.stack(
    [
      own.known
      for own in tables.build({t: {} for t in TASKS}, SHAPE, GRID).values()
    ]
  )
  draw = rng.integers(0, np.asarray(SIZES) // 2, (2, 10, *GRID, 2)) * 2
  ids, hints = draw[0].astype(np.int32), draw[1].astype(np.int32) + 1
  order = np.arange(10, dtype=np.int32)
  return ids, TokenCondition(hints, known, order % 3, order)


@pytest.fixture
def commit(monkeypatch):
  """(generator, its transformer)."""
  told = Told()
  monkeypatch.setattr(transformers, "build_model", lambda *_, **__: told)
  gen = masked.make(
    sizes=SIZES,
    grid=GRID,
    classes=2,
    tasks=10,
    transformer={},
    condition="commit",
  )
  return gen, told


def test_there_are_ten_tasks():
  assert len(TASKS) == 10


def test_training_shows_each_task_what_the_rule_says(commit, batch):
  gen, told = commit
  ids, cond = batch

  @jax.jit
  def run(key):
    loss, metrics = gen.loss({}, ids, cond, key)
    return loss, metrics, told.shown

  counts = []
  for key in jax.random.split(KEY, 4):
    loss, metrics, shown = jax.device_get(run(key))
    total = 0.0
    for b in range(10):
      left = 0
      for at in np.ndindex(*GRID):
        token = shown[b][at].tolist()
        if token == ids[b][at].tolist():  # as it is
          left += 1
        elif cond.known[b][at]:  # masked, and condition
          assert token == cond.ids[b][at].tolist(), TASKS[b]
        else:  # masked, and not condition
          assert token == list(SIZES), TASKS[b]
        total += entropy(token, ids[b][at])
      counts.append(N - left)
    # Every position counts, and examples count alike.
    np.testing.assert_allclose(loss, total / (10 * N), rtol=1e-4)
    assert metrics["masked"] == pytest.approx(np.mean(counts[-10:]) / N)
  # Every example has its own ratio, and N holds the condition positions too.
  assert len(set(counts)) > 15 and max(counts) > 40
  assert counts == expected_counts()


def entropy(token, target):
  """-log p in nats of the target where `token` is shown."""
  nats = 0.0
  for f, size in enumerate(SIZES):
    logits = np.arange(size) * 0.1
    logits[(3 * token[f] + 1) % size] += 30
    nats += np.log(np.exp(logits).sum()) - logits[target[f]]
  return nats


def expected_counts():
  """max(1, floor(N cos(pi r / 2))) of each example's own ratio."""
  counts = []
  for key in jax.random.split(KEY, 4):
    ratio = jax.random.split(jax.random.split(key, 3)[0])[0]
    r = np.asarray(jax.random.uniform(ratio, (10,)))
    counts += np.maximum(np.floor(N * np.cos(np.pi / 2 * r)), 1).tolist()
  return counts


def test_decoding_masks_again_by_the_same_rule(commit, batch):
  """What is not decided yet is shown as condition or MASK in every step."""
  gen, _ = commit
  _, cond = batch
  hint = np.where(cond.known[..., None], cond.ids, SIZES)
  trace = jax.jit(gen.trace, static_argnums=3)({}, cond, KEY, METHOD)
  open_, counts = np.ones((10, *GRID), bool), []
  before = hint
  for ids, again in zip(*jax.device_get(trace), strict=True):
    np.testing.assert_array_equal(ids[open_], answers(hint)[open_])
    np.testing.assert_array_equal(ids[~open_], before[~open_])
    assert not (again & ~open_).any()
    counts.append(again.sum((1, 2, 3)))
    before, open_ = ids, again
  # Condition positions are decoded like all others, and counted.
  table = schedules.counts("cosine", N, METHOD.steps)
  np.testing.assert_array_equal(counts, np.stack([table] * 10, axis=1))
  refined = before[cond.known] != cond.ids[cond.known]
  assert refined.any() and (before < np.asarray(SIZES)).all()
