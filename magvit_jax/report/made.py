"""What a generator makes for the report: futures of clips, samples of classes.

Futures continue held-out clips; of several samples of one future the first is
shown, never the best.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from magvit_jax.data import transforms
from magvit_jax.inference import prompts
from magvit_jax.metrics import averages

PREDICTED = 6  # clips continued, over all files
PER_CLASS = 3
MAX_CLASSES = 10
SEED = 0


class Future(NamedTuple):
  """A held-out clip and its continuation.

  Attributes:
    name: file or class it comes from.
    given: how many of the first frames were given.
    video: uint8 [t h w 3], the original.
    made: uint8 [t h w 3], the given frames and the predicted ones.
    psnr: dB of the predicted frames.
    repeat: dB of repeating the last given frame instead.
    ceiling: dB of the tokenizer's reconstruction of these frames.
  """

  name: str
  given: int
  video: np.ndarray
  made: np.ndarray
  psnr: float
  repeat: float
  ceiling: float


class Made(NamedTuple):
  """What a generator made.

  Attributes:
    futures: of held-out clips, () if it does not predict frames.
    samples: uint8 [n t h w 3] by class, {} if it does not sample classes.
    settings: how the ids were decoded, as text.
  """

  futures: tuple[Future, ...]
  samples: dict[str, np.ndarray]
  settings: str


def make(gen: Any, source: Any | None) -> Made:
  """Runs a generator.

  Args:
    gen: what `load_generator` gives.
    source: held-out clips to continue; None continues none.
  """
  futures = source is not None and gen.given_frames()
  return Made(
    _futures(gen, source) if futures else (),
    _samples(gen) if prompts.class_task(gen.model) else {},
    str(gen.method),
  )


def _futures(gen: Any, source: Any) -> tuple[Future, ...]:
  """Continues clips spread over the files, and over the given counts."""
  futures = []
  given = list(gen.given_frames())
  for k, clip in enumerate(_spread(source)):
    name = pathlib.PurePath(str(source.files[clip["file"]])).name
    frames = given[k % len(given)]
    futures.append(_future(gen, name, clip["video"], frames, SEED + k))
  return tuple(sorted(futures, key=lambda future: future.name))


def _spread(source: Any) -> list[dict[str, Any]]:
  """Held-out clips with pixels, as many of each file, spread over the list."""
  order = np.linspace(0, len(source) - 1, min(len(source), 8 * PREDICTED))
  per_file = max(1, PREDICTED // max(1, len(source.files)))
  taken: dict[int, int] = {}
  clips = []
  for index in dict.fromkeys(round(k) for k in order):
    clip = source.clip(index, np.random.default_rng((0, index)))
    file = int(clip["file"])
    if "video" not in clip or taken.get(file, 0) >= per_file:
      continue
    taken[file] = taken.get(file, 0) + 1
    clips.append(clip)
    if len(clips) == PREDICTED:
      break
  return clips


def _future(
  gen: Any, name: str, video: np.ndarray, given: int, seed: int
) -> Future:
  made = gen.predict(video, given=given, seed=seed)[0]
  ceiling = gen.reconstruct(video)
  real = transforms.to_float(video)
  repeat = np.repeat(real[given - 1 : given], len(real), axis=0)

  def quality(other: np.ndarray) -> float:
    pair = (real[None, given:], other[None, given:])
    return float(averages.psnr_per_frame(*pair).mean())

  shown = np.concatenate([video[:given], transforms.to_uint8(made)[given:]])
  scores = [quality(other) for other in (made, repeat, ceiling)]
  return Future(name, given, video, shown, *scores)


def _samples(gen: Any) -> dict[str, np.ndarray]:
  labels = gen.labels[:MAX_CLASSES]
  numbers = np.repeat(np.arange(len(labels)), PER_CLASS)
  videos = gen.sample(numbers, num=len(numbers), seed=SEED)
  videos = transforms.to_uint8(videos)
  return {
    name or "all": videos[k * PER_CLASS : (k + 1) * PER_CLASS]
    for k, name in enumerate(labels)
  }
