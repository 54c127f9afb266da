"""Bouncing digits: labels, splits, motion."""

import contextlib

import numpy as np
import PIL.Image

from helpers.errors import error_names
from magvit_jax.data import moving_digits, pipeline


def test_digits_carry_their_label():
  train = moving_digits.Source("train", frames=4, size=(24, 32))
  held = moving_digits.Source("eval", frames=4, size=(24, 32), eval_clips=20)
  with contextlib.closing(
    pipeline.train_batches(train, seed=0, batch=64)
  ) as batches:
    batch = next(batches)
  assert set(batch["label"]) <= set(range(10)) and len(set(batch["label"])) > 6
  assert batch["video"].shape == (64, 4, 24, 32, 3)
  a, b = (train.clip(3, np.random.default_rng(0))["video"] for _ in "ab")
  np.testing.assert_array_equal(a, b)
  assert len(held) == 20
  np.testing.assert_array_equal(
    held.clip(4, np.random.default_rng(0))["video"],
    held.clip(4, np.random.default_rng(1))["video"],
  )


def test_a_digit_can_be_told_by_its_label():
  """Nearest training digit of the first frame has the clip's label."""
  held = moving_digits.Source("eval", frames=1, size=(24, 24), eval_clips=50)
  templates = moving_digits._digits("train")
  right = 0
  for i in range(len(held)):
    clip = held.clip(i, None)
    lit = clip["video"][0, ..., 0]
    ys, xs = np.nonzero(lit > 40)
    box = lit[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    scores = [_likeness(box, pool[:30]) for pool in templates]
    right += int(np.argmax(scores)) == clip["label"]
  assert right > 30


def _likeness(box, pool):
  best = -1.0
  view = PIL.Image.fromarray(box).resize((8, 8))
  view = np.asarray(view, np.float32).ravel()
  for digit in pool:
    ys, xs = np.nonzero(digit > 40)
    own = digit[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    own = np.asarray(PIL.Image.fromarray(own).resize((8, 8)), np.float32)
    best = max(best, float(np.corrcoef(view, own.ravel())[0, 1]))
  return best


def test_digits_stay_inside_and_move():
  train = moving_digits.Source("train", frames=60, size=(20, 40), digits=1)
  video = train.clip(0, np.random.default_rng(0))["video"][..., 0]
  mass = video.astype(float).sum((1, 2))
  assert mass.min() > 0.99 * mass.max()
  columns = [np.average(np.arange(40), weights=f.sum(0)) for f in video]
  assert np.ptp(columns) > 10
  assert np.abs(np.diff(columns)).max() <= 3


def test_scale_and_speed_of_a_digit():
  def columns(**args):
    source = moving_digits.Source("train", frames=5, size=(32, 32), **args)
    video = source.clip(0, np.random.default_rng(0))["video"][..., 0]
    return source.side, np.nonzero(video.max((0, 1)))[0]

  side, still = columns(speed=0.0)
  assert side == 14 and np.ptp(still) < 14
  side, large = columns(speed=0.0, scale=0.875)
  assert side == 28 and np.ptp(still) < np.ptp(large) < 28
  with error_names(ValueError, 1.0, "scale"):
    columns(scale=1.0)
  with error_names(ValueError, -0.1, "speed"):
    columns(speed=-0.1)


def test_digits_of_the_two_splits_differ():
  for train, held in zip(
    moving_digits._digits("train"), moving_digits._digits("eval"), strict=True
  ):
    assert len(train) > 3 * len(held) > 60
  report = moving_digits.Source("eval").split_report()
  assert sum(sum(counts.values()) for counts in report.values()) == 1797
