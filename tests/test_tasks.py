"""Tasks: what is seen stays, what is known, and mixtures by gather."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.tasks import (
  class_cond,
  frame_prediction,
  free_mask,
  interpolation,
  regions,
  tables,
)

VIDEO, LATENT = (9, 16, 24, 3), (3, 4, 6)
NAMES = registry.names("tasks")
# Share of the latent positions that are condition: MAGVIT's 4x16x16 grid of
# 16 frames (arXiv:2212.05199), and the causal 5x16x16 grid of 17.
SHARES = dict(
  frame_prediction=(0.25, 0.2),
  interpolation=(0.5, 0.4),
  outpaint_central=(0.25, 0.25),
  outpaint_vertical=(0.5, 0.5),
  outpaint_horizontal=(0.5, 0.5),
  outpaint_dynamic=(0.5, 0.5),
  inpaint_central=(0.75, 0.75),
  inpaint_dynamic=(0.75, 0.75),
  class_cond=(0, 0),
  class_cond_frame_prediction=(0.25, 0.2),
)
FIRST = ("frame_prediction", "class_cond_frame_prediction")
LABELLED = ("class_cond", "class_cond_frame_prediction")


def task(name):
  module = importlib.import_module(f"magvit_jax.tasks.{name}")
  return registry.build("tasks", {"name": name, **module.TINY})


def clip(b=2):
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (b, *VIDEO)).astype(np.float32)


RUN = jax.jit(tables.apply)


def fill(own, video):
  """The condition clips of one task's tables, all in one program."""
  # One shape for all latent grids.
  rows = tables.stack([own._replace(known=own.known[:1])] * len(video))
  return RUN(rows, video)


def apply(name, video):
  return fill(task(name).tables(VIDEO, LATENT), video)


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_as_the_contract_says(name):
  own = task(name).tables(VIDEO, LATENT)
  t, h, w = VIDEO[:3]
  shapes = dict(frame=(2, t), blend=(2, t), row=(t, h), col=(t, w))
  shapes |= dict(seen=(t, h, w), black=(), known=LATENT, label=())
  for field, shape in shapes.items():
    assert getattr(own, field).shape == shape, field
  np.testing.assert_allclose(own.blend.sum(0), 1)
  assert own.frame.min() >= 0 and own.frame.max() < t
  assert own.row.min() >= 0 and own.row.max() < h
  assert own.col.min() >= 0 and own.col.max() < w
  assert bool(own.label) == (name in LABELLED)


@pytest.mark.parametrize("name", NAMES)
def test_seen_pixels_stay_and_nothing_else_is_told(name):
  video = clip()
  cond = apply(name, video)
  seen = np.asarray(cond.seen)
  np.testing.assert_array_equal(cond.video[seen], video[seen])
  # Other pixels may only follow from those that are seen.
  other = np.where(seen[..., None], video, -video)
  np.testing.assert_array_equal(apply(name, other).video, cond.video)


def test_class_cond_gives_a_black_clip_and_the_label():
  cond = apply("class_cond", clip())
  assert not cond.seen.any()
  np.testing.assert_array_equal(cond.video, -1)
  assert not class_cond.Task().tables(VIDEO, LATENT).known.any()


@pytest.mark.parametrize("frames", [1, 5])
def test_frame_prediction_repeats_the_last_given_frame(frames):
  video = clip()
  own = frame_prediction.Task(frames).tables(VIDEO, LATENT)
  cond = fill(own, video)
  np.testing.assert_array_equal(cond.video[:, :frames], video[:, :frames])
  for t in range(frames, VIDEO[0]):
    np.testing.assert_array_equal(cond.video[:, t], video[:, frames - 1])
  assert tables.given_frames(own) == frames and not own.label


@pytest.mark.parametrize("name", SHARES)
def test_known_share_is_the_published_one(name):
  grids = ((16, 128, 128), (4, 16, 16)), ((17, 128, 128), (5, 16, 16))
  for (video, latent), share in zip(grids, SHARES[name], strict=True):
    assert task(name).tables(video, latent).known.mean() == share


def test_all_ten_tasks_and_the_free_mask_are_there():
  assert set(NAMES) == {*SHARES, "free_mask"}


@pytest.mark.parametrize(
  "frames, video, latent, share",
  [(5, 9, 3, 2 / 3), (5, 17, 5, 0.4), (9, 17, 5, 0.6), (5, 16, 4, 0.5)],
)
def test_known_share_of_more_given_frames(frames, video, latent, share):
  own = frame_prediction.Task(frames).tables((video, 8, 8), (latent, 4, 4))
  assert own.known.mean() == pytest.approx(share)


def edges(crop, whole, top, left):
  """`crop` [b t a c 3] with its edges repeated to the size of `whole`."""
  below = whole.shape[2] - top - crop.shape[2]
  right = whole.shape[3] - left - crop.shape[3]
  pads = ((0, 0), (0, 0), (top, below), (left, right), (0, 0))
  return np.pad(crop, pads, mode="edge")


def test_outpainting_repeats_the_edges_of_what_is_given():
  video = clip()
  for name, rows, cols in [
    ("outpaint_central", (4, 12), (6, 18)),
    ("outpaint_vertical", (0, 16), (6, 18)),
    ("outpaint_horizontal", (4, 12), (0, 24)),
  ]:
    crop = video[:, :, slice(*rows), slice(*cols)]
    cond = apply(name, video)
    padded = edges(crop, video, rows[0], cols[0])
    np.testing.assert_array_equal(cond.video, padded)
    assert cond.seen.sum() == np.prod(crop.shape[:4])


def test_what_moves_goes_from_edge_to_edge_and_the_rest_is_black():
  # The official round(linspace(0, w / 2, t)), computed by hand.
  left = [0, 4, 9, 13, 17, 21, 26, 30, 34, 38, 43, 47, 51, 55, 60, 64]
  shapes = (16, 32, 128), (4, 8, 16)
  strip = task("outpaint_dynamic").tables(*shapes)
  hole = task("inpaint_dynamic").tables(*shapes)
  for own, starts, (_, h, w) in [
    ("seen", left, shapes[0]),
    ("known", [0, 3, 5, 8], shapes[1]),
  ]:
    for k, start in enumerate(starts):
      inside = np.zeros((h, w), bool)
      inside[:, start : start + w // 2] = True
      np.testing.assert_array_equal(getattr(strip, own)[k], inside)
      inside[: h // 4] = inside[h * 3 // 4 :] = False
      np.testing.assert_array_equal(getattr(hole, own)[k], ~inside)
  video = clip()
  for name in ("outpaint_dynamic", "inpaint_central", "inpaint_dynamic"):
    cond = apply(name, video)
    np.testing.assert_array_equal(cond.video[~np.asarray(cond.seen)], -1)
  assert not apply("inpaint_central", video).seen[:, :, 4:12, 6:18].any()


@pytest.mark.parametrize("frames", [1, 2])
def test_interpolation_goes_linearly_from_end_to_end(frames):
  video = clip()
  own = interpolation.Task(frames).tables(VIDEO, (5, 4, 6))
  cond = fill(own, video)
  middle = VIDEO[0] - 2 * frames
  start, end = video[:, frames - 1], video[:, VIDEO[0] - frames]
  for k in range(1, middle + 1):
    expected = start + (end - start) * (k / (middle + 1))
    got = cond.video[:, frames - 1 + k]
    np.testing.assert_allclose(got, expected, atol=1e-6)
  for ends in (slice(0, frames), slice(VIDEO[0] - frames, None)):
    np.testing.assert_array_equal(cond.video[:, ends], video[:, ends])
  # A causal tokenizer holds the first frame alone and then two by two.
  expected = [True, frames > 1, False, False, True]
  np.testing.assert_array_equal(own.known.all((1, 2)), expected)


@pytest.mark.parametrize(
  "frames, latents, stops",
  [
    (16, 4, [4, 8, 12, 16]),
    (17, 5, [1, 5, 9, 13, 17]),
    (9, 3, [1, 5, 9]),
    (8, 2, [4, 8]),
    (5, 5, [1, 2, 3, 4, 5]),
    (5, 1, [5]),
    (1, 1, [1]),
  ],
)
def test_spans_of_latent_frames(frames, latents, stops):
  start, stop = regions.spans(frames, latents)
  assert stop.tolist() == stops and start.tolist() == [0, *stops[:-1]]


def test_a_free_mask_knows_what_it_wholly_sees():
  """A position is known iff every pixel under it is: one pixel is enough."""
  rng = np.random.default_rng(0)
  seen = rng.random(VIDEO[:3]) < 0.97
  own = free_mask.from_seen(seen, VIDEO, LATENT)
  for k, frames in enumerate([(0, 1), (1, 5), (5, 9)]):
    for i, j in np.ndindex(4, 6):
      under = seen[slice(*frames), 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
      assert own.known[k, i, j] == under.all()
  assert 0 < own.known.mean() < 1 and own.black and not own.label
  coarse = free_mask.Task(mask=("#..", "...")).tables(VIDEO, LATENT)
  hidden = np.zeros(VIDEO[1:3], bool)
  hidden[:8, :8] = True
  np.testing.assert_array_equal(coarse.seen, [~hidden] * 9)
  np.testing.assert_array_equal(coarse.known[1], ~hidden[::4, ::4])
  for mask in ((), ("..", "."), ("x",), ("",)):
    with error_names(ValueError, "free_mask", f"mask is {mask}"):
      free_mask.Task(mask=mask)
  with error_names(ValueError, "(9, 8, 24)", "(9, 16, 24)"):
    free_mask.from_seen(seen[:, :8], VIDEO, LATENT)


def test_a_mixed_batch_equals_a_batch_per_task():
  every = {n: {} for n in SHARES} | {"free_mask": free_mask.TINY}
  built = tables.build(every, VIDEO, LATENT)
  stacked = tables.stack(list(built.values()))
  run = jax.jit(lambda task, video: tables.condition(stacked, task, video))
  video = clip(len(built))
  mixed = run(jnp.arange(len(built)), video)
  for i, name in enumerate(built):
    alone = run(jnp.full(len(built), i, jnp.int32), video)
    for a, b in zip(mixed, alone, strict=True):
      np.testing.assert_array_equal(a[i], b[i], err_msg=name)
  assert run._cache_size() == 1  # no mixture costs another program
  videos = {np.asarray(x).tobytes() for x in mixed.video}
  assert len(videos) == len(built)  # every clip is another one


def test_what_causal_ids_can_serve():
  one, five = (frame_prediction.Task(n).tables(VIDEO, LATENT) for n in (1, 5))
  for own in (one, five, class_cond.Task().tables(VIDEO, LATENT)):
    assert tables.from_prefix(own, stride=4)
    tables.check_causal("x", own, stride=4)
  known = one.known.copy()
  known[2] = True  # the last latent frame, of which only padding is seen
  assert not tables.from_prefix(one._replace(known=known), stride=4)
  for name in NAMES:
    served = name in ("class_cond", *FIRST)
    own = task(name).tables(VIDEO, LATENT)
    assert tables.from_prefix(own, stride=4) == served, name


def test_bad_frames_are_refused():
  for frames in (0, 9):
    with error_names(ValueError, "frame_prediction", "frames", frames, 5):
      frame_prediction.Task(frames).tables(VIDEO, LATENT)
  for frames in (0, 4):
    with error_names(ValueError, "interpolation", "frames", frames):
      interpolation.Task(frames).tables(VIDEO, LATENT)
  with error_names(ValueError, 11, 4):
    interpolation.Task().tables((11, 16, 24), (4, 4, 6))
  with error_names(ValueError, "16x24", "5x6"):
    interpolation.Task().tables(VIDEO, (3, 5, 6))
  own = frame_prediction.Task(3).tables(VIDEO, LATENT)
  with error_names(ValueError, "stage.tasks.frame_prediction", 3, "1, 5"):
    tables.check_causal("frame_prediction", own, stride=4)
  with error_names(KeyError, "tasks", "class_con", "class_cond"):
    tables.build({"class_con": {}}, VIDEO, LATENT)
  with error_names(ValueError, "stage.tasks", "class_cond"):
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
