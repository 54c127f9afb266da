"""Tasks: what is seen stays, what is known, and mixtures by gather."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax import registry
from magvit_jax.tasks import class_cond, frame_prediction, tables

VIDEO, LATENT = (9, 16, 24, 3), (3, 2, 3)
NAMES = registry.names("tasks")


def task(name):
  module = importlib.import_module(f"magvit_jax.tasks.{name}")
  return registry.build("tasks", {"name": name, **module.TINY})


def clip(b=2):
  return jax.random.uniform(jax.random.key(0), (b, *VIDEO)) * 2 - 1


def apply(name, video):
  stacked = tables.stack([task(name).tables(VIDEO, LATENT)])
  return tables.condition(stacked, jnp.zeros(len(video), jnp.int32), video)


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_as_the_contract_says(name):
  own = task(name).tables(VIDEO, LATENT)
  t, h, w = VIDEO[:3]
  shapes = dict(frame=(2, t), blend=(2, t), row=(t, h), col=(t, w))
  shapes |= dict(fill=(), box=(t, 4), invert=(), known=LATENT, label=())
  for field, shape in shapes.items():
    assert getattr(own, field).shape == shape, field
  np.testing.assert_allclose(own.blend.sum(0), 1)
  assert own.frame.min() >= 0 and own.frame.max() < t
  assert own.row.max() < h and own.col.max() < w


@pytest.mark.parametrize("name", NAMES)
def test_seen_pixels_stay_and_nothing_else_is_told(name):
  video = clip()
  cond = apply(name, video)
  seen = np.asarray(cond.seen)
  np.testing.assert_array_equal(cond.video[seen], video[seen])
  # Other pixels may only follow from those that are seen.
  other = jnp.where(cond.seen[..., None], video, -video)
  np.testing.assert_array_equal(apply(name, other).video, cond.video)


def test_class_cond_gives_a_black_clip_and_the_label():
  cond = apply("class_cond", clip())
  assert not cond.seen.any() and not cond.known.any()
  np.testing.assert_array_equal(cond.video, -1)
  assert class_cond.Task().tables(VIDEO, LATENT).label


@pytest.mark.parametrize("frames", [1, 5])
def test_frame_prediction_repeats_the_last_given_frame(frames):
  video = clip()
  own = frame_prediction.Task(frames).tables(VIDEO, LATENT)
  cond = tables.condition(tables.stack([own]), jnp.zeros(2, int), video)
  np.testing.assert_array_equal(cond.video[:, :frames], video[:, :frames])
  for t in range(frames, VIDEO[0]):
    np.testing.assert_array_equal(cond.video[:, t], video[:, frames - 1])
  assert tables.given_frames(own) == frames and not own.label


@pytest.mark.parametrize(
  "frames, video, latent, share",
  [
    (1, 9, 3, 1 / 3),
    (5, 9, 3, 2 / 3),
    (1, 17, 5, 0.2),  # one and five frames of a 5x16x16 grid: 20 and 40 %
    (5, 17, 5, 0.4),
    (1, 16, 4, 0.25),  # MAGVIT's 4x16x16 grid, not causal
  ],
)
def test_known_share(frames, video, latent, share):
  own = frame_prediction.Task(frames).tables((video, 8, 8), (latent, 4, 4))
  assert own.known.mean() == pytest.approx(share)


def test_a_mixed_batch_equals_a_batch_per_task():
  built = tables.build({n: {} for n in NAMES}, VIDEO, LATENT)
  stacked = tables.stack(list(built.values()))
  run = jax.jit(lambda task, video: tables.condition(stacked, task, video))
  video = clip(4)
  mixed = run(jnp.arange(4) % len(NAMES), video)
  for i in range(len(NAMES)):
    alone = run(jnp.full(4, i, jnp.int32), video)
    rows = np.arange(4) % len(NAMES) == i
    for a, b in zip(mixed, alone, strict=True):
      np.testing.assert_array_equal(a[rows], b[rows])
  assert run._cache_size() == 1  # no mixture costs another program


def test_boxes_holes_and_blends():
  """The tables can say what the papers' other tasks need."""
  whole = tables.identity(VIDEO, LATENT)
  video = clip(1)
  rows = np.arange(VIDEO[1]) // 8 == 1  # the lower half is left out
  cols = np.arange(VIDEO[2]) < 12
  row = np.where(rows, -1, whole.row).astype(np.int32)
  col = np.where(cols, -1, whole.col).astype(np.int32)
  box = np.tile(np.array([8, 0, 16, 12], np.int32), (9, 1))
  hole = whole._replace(row=row, col=col, box=box, invert=np.bool_(True))
  cond = tables.condition(tables.stack([hole]), jnp.zeros(1, int), video)
  inside = rows[:, None] & cols
  np.testing.assert_array_equal(np.asarray(cond.seen)[0, 0], ~inside)
  np.testing.assert_array_equal(cond.video[0][:, inside], -1)
  np.testing.assert_array_equal(cond.video[0][:, ~inside], video[0][:, ~inside])
  ends = np.stack([np.zeros(9), np.full(9, 8)]).astype(np.int32)
  share = (np.arange(9) / 8).astype(np.float32)
  between = whole._replace(frame=ends, blend=np.stack([1 - share, share]))
  cond = tables.condition(tables.stack([between]), jnp.zeros(1, int), video)
  middle = (video[:, 0] + video[:, 8]) / 2
  np.testing.assert_allclose(cond.video[:, 4], middle, atol=1e-6)


def test_what_causal_ids_can_serve():
  one, five = (frame_prediction.Task(n).tables(VIDEO, LATENT) for n in (1, 5))
  for own in (one, five, class_cond.Task().tables(VIDEO, LATENT)):
    assert tables.from_prefix(own, stride=4)
    tables.check_causal("x", own, stride=4)
  known = one.known.copy()
  known[2] = True  # the last latent frame, of which only padding is seen
  assert not tables.from_prefix(one._replace(known=known), stride=4)


def test_bad_frames_are_refused():
  for frames in (0, 9):
    with pytest.raises(ValueError, match=f"frames is {frames};.*at most 6"):
      frame_prediction.Task(frames).tables(VIDEO, LATENT)
  own = frame_prediction.Task(3).tables(VIDEO, LATENT)
  with pytest.raises(ValueError, match="gives 3 frames.*give one of 1, 5"):
    tables.check_causal("frame_prediction", own, stride=4)
  with pytest.raises(KeyError, match="did you mean 'class_cond'"):
    tables.build({"class_con": {}}, VIDEO, LATENT)
  with pytest.raises(ValueError, match="stage.tasks is empty"):
    tables.build({}, VIDEO, LATENT)


def test_one_task_may_come_twice():
  """A `name` lets two keys hold the same task with other arguments."""
  built = tables.build(
    {
      "one": dict(name="frame_prediction", frames=1, weight=1.0),
      "five": dict(name="frame_prediction", frames=5, weight=2.0),
    },
    VIDEO,
    LATENT,
  )
  assert list(built) == ["five", "one"]
  assert [tables.given_frames(own) for own in built.values()] == [5, 1]
