"""Images beside clips in one stream of batches, for joint training.

MAGVIT-v2 (2310.05737) trains one net on both: an image is a clip of one frame.
A batch then has 'image' float32 [b' 1 h w 3] beside its clips. Batch s of
either is a pure function of (seed, s), as without the other.

A config asks for it with `images = dict(batch=…, data=dict(name=…, …))`, where
`data` is any source of single frames, as large as those of the clips.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import grain
import numpy as np

from magvit_jax import registry
from magvit_jax.data import pipeline

Batches = grain.DatasetIterator | Generator[dict[str, Any]]
_STREAM = 1  # mixed into the seed: images draw other numbers than clips


class Images(NamedTuple):
  """What a batch has beside its clips.

  Attributes:
    source: of single frames.
    batch: rows of a global batch.
  """

  source: Any
  batch: int


def build(
  cfg: Any,
  shape: tuple[int, ...],
  context: Mapping[str, Any],
) -> Images | None:
  """The images that a config asks for, or None.

  Args:
    cfg: ConfigDict; it may have `images`.
    shape: (t, h, w, 3) of the clips.
    context: of the stage, whose 'latent_shape' knows what can be coded.

  Raises:
    ValueError: images of several frames or of another size than the clips, or
      a net that cannot code a frame alone.
  """
  if "images" not in cfg:
    return None
  source = registry.build("data", cfg.images.data, split="train")
  wanted = (1, *shape[1:])
  if tuple(source.shape) != wanted:
    raise ValueError(
      f"images.data gives images of shape {tuple(source.shape)}, and beside "
      f"clips of {tuple(shape)} they must be {wanted}: set "
      f"images.data.frames=1 and images.data.size={tuple(shape[1:3])}"
    )
  try:
    context["latent_shape"](*wanted[:3])
  except ValueError as error:
    raise ValueError(
      f"images beside clips need a backbone that codes one frame: {error}"
    ) from error
  return Images(source, cfg.images.batch)


def counts(cfg: Any) -> dict[str, int]:
  """Rows of a global training batch, by the key that says so."""
  images = {"images.batch": cfg.images.batch} if "images" in cfg else {}
  return {"batch": cfg.batch, **images}


def train_batches(
  source: Any,
  images: Images | None,
  *,
  seed: int,
  batch: int,
  start: int,
  rows: Callable[[int], slice],
  loader: Mapping[str, int],
) -> Batches:
  """`pipeline.train_batches`, with 'image' if there are images.

  Args:
    source: of the clips.
    images: beside them, or None.
    seed: of the stream.
    batch: clips of a global batch.
    start: number of the first batch.
    rows: this process's rows of a global batch of so many.
    loader: see `pipeline.train_batches`, for either of the two.

  Returns:
    An iterator of batches with a `close`; 'skipped' and 'bad' are of clips and
    images.
  """
  clips = pipeline.train_batches(
    source,
    seed=seed,
    batch=batch,
    start=start,
    rows=rows(batch),
    loader=loader,
  )
  if images is None:
    return clips
  other = pipeline.train_batches(
    images.source,
    seed=_other(seed),
    batch=images.batch,
    start=start,
    rows=rows(images.batch),
    loader=loader,
  )
  return _with_images(clips, other)


def _other(seed: int) -> int:
  # A clip and the image of its row would else show the same moment.
  mixed = np.random.SeedSequence((seed, _STREAM)).generate_state(1)[0]
  return int(mixed)


def _with_images(clips: Batches, images: Batches) -> Batches:
  """Batches of clips that hold those of images, too."""
  with contextlib.closing(clips), contextlib.closing(images):
    for batch, more in zip(clips, images, strict=True):
      yield {
        **batch,
        "image": more["video"],
        "skipped": np.concatenate([batch["skipped"], more["skipped"]]),
        "bad": [*batch["bad"], *more["bad"]],
      }
