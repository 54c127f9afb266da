"""Long videos: chunks that go on from one another, in constant memory."""

import tracemalloc

import numpy as np
import pytest

import magvit_jax
from helpers import untrained_generator
from helpers.errors import error_names
from magvit_jax.inference import long_video, prompts, sampler
from magvit_jax.tasks import tables

LENGTH, GIVEN = 9, 5  # of a toy's clip; the most frames it goes on from


@pytest.fixture(scope="module")
def gen():
  return magvit_jax.load_generator(untrained_generator.folder())


def chunks(gen, frames, seed=0, num=2):
  prompt = prompts.predict(
    gen.model, untrained_generator.clip(), 1, labelled=False
  )
  labels = gen.label_numbers(None, num)
  return list(gen.stream(prompt, labels, frames=frames, seed=seed))


def test_each_chunk_goes_on_from_the_last_frames_before_it(gen):
  pieces = chunks(gen, 15)
  assert [p.video.shape[1] for p in pieces] == [9, 4, 2]
  before = pieces[0].video
  for piece in pieces[1:]:
    # The ids of the frames that it was given, as the start of a clip.
    given = np.stack([gen.tokenizer.encode(v[-GIVEN:]) for v in before])
    same = piece.ids[:, : given.shape[1]] == given
    # A latent beside its threshold may fall to the other side.
    assert same.mean() > 0.95
    whole = gen.decode(piece.ids)
    np.testing.assert_array_equal(
      piece.video, whole[:, GIVEN : GIVEN + piece.video.shape[1]]
    )
    before = np.concatenate([before, piece.video], axis=1)
  assert (pieces[1].ids != pieces[2].ids).any()


def test_a_longer_video_begins_with_the_shorter_one(gen):
  clip = untrained_generator.clip()
  long = gen.predict(clip, frames=15, num=2, seed=3)
  assert long.shape == (2, 15, *gen.shape[1:]) and long.dtype == np.float32
  for frames in (9, 11):
    short = gen.predict(clip, frames=frames, num=2, seed=3)
    np.testing.assert_array_equal(short, long[:, :frames])
  np.testing.assert_array_equal(gen.predict(clip, num=2, seed=3), long[:, :9])
  assert (gen.predict(clip, frames=9, num=2, seed=4) != long[:, :9]).any()
  assert (long[0] != long[1]).any()


def test_a_class_is_kept_in_all_chunks(gen, monkeypatch):
  seen = []
  complete = gen.complete

  def spy(prompt, labels, **rest):
    seen.append((prompt.task, labels.tolist()))
    return complete(prompt, labels, **rest)

  monkeypatch.setattr(gen, "complete", spy)
  gen.sample("dog", frames=12, num=2)
  assert seen == [("class_cond", [1, 1]), ("told", [1, 1])]


class Fake:
  """As much of a generator as a stream needs, of larger frames."""

  shape, labels = (9, 64, 64, 3), ()

  def __init__(self):
    tasks = {"five": dict(name="frame_prediction", frames=5)}
    self.tasks = tables.build(tasks, self.shape, (3, 8, 8))
    self.model = prompts.Model(self.shape, (3, 8, 8), self.tasks)
    self.calls, self.given = 0, []

  def complete(self, prompt, labels, **_):
    self.calls += 1
    self.given.append(prompt.video[0, :5, 0, 0, 0].tolist())
    return np.zeros((len(labels), 3, 8, 8, 1), np.int32)

  def decode(self, ids):
    return np.full((len(ids), *self.shape), self.calls, np.float32)


def stream(gen, frames):
  prompt = prompts.by_task(gen.model, "five", np.zeros(gen.shape, np.uint8))
  return long_video.stream(
    gen, prompt, np.zeros(2, np.int32), frames=frames, seed=0, method={}
  )


def test_memory_does_not_grow_with_the_length():
  peaks = []
  for frames in (29, 29, 409):
    tracemalloc.start()
    total = sum(piece.video.shape[1] for piece in stream(Fake(), frames))
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert total == frames
  assert peaks[2] < 1.1 * peaks[1]
  assert peaks[2] < 12 * 2 * 9 * 64 * 64 * 3 * 4  # a few chunks of two videos


def test_what_is_given_are_the_frames_that_were_shown():
  """Not those that a chunk made again of the frames it was given."""
  gen = Fake()
  list(stream(gen, 17))
  assert gen.given[1:] == [[1] * 5, [1] + [2] * 4]


def test_a_chunk_is_made_when_it_is_asked_for():
  gen = Fake()
  pieces = stream(gen, 10**9)
  assert gen.calls == 0
  assert next(pieces).video.shape[1] == 9 and gen.calls == 1
  assert next(pieces).video.shape[1] == 4 and gen.calls == 2


def test_lengths_that_cannot_be_made_are_refused(gen):
  clip = untrained_generator.clip()
  with error_names(ValueError, "frames=5", 9):
    gen.predict(clip, given=5, frames=5)
  only = sampler.Sampler.__new__(sampler.Sampler)
  only.shape, only.tasks = gen.shape, {"x": gen.tasks["class_cond"]}
  only.model = prompts.Model(gen.shape, gen.grid, only.tasks)
  with error_names(ValueError, "frames=10", 9, "x"):
    long_video.check(only, 10)
  with error_names(ValueError, "frame_prediction", "class_cond"):
    gen.label_numbers("dog", 1, "frame_prediction")
