"""Prompts: what a generator is given of a clip, made from what a user has.

Each function turns a user's video into a `Prompt` under one of the tasks that a
checkpoint was trained on, found by what the tasks give rather than by their
names, which a config may choose. A request that no task serves is refused with
the tasks there are.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from magvit_jax import messages
from magvit_jax.data import transforms
from magvit_jax.tasks import Tables, free_mask
from magvit_jax.tasks import tables as task_tables


class Model(NamedTuple):
  """What prompts are checked against.

  Attributes:
    shape: (t, h, w, 3) of the clips.
    grid: (T, H, W) of their ids.
    tasks: the tables of each trained task.
  """

  shape: tuple[int, int, int, int]
  grid: tuple[int, int, int]
  tasks: Mapping[str, Tables]


class Prompt(NamedTuple):
  """A condition clip before it is filled.

  Attributes:
    task: key of a trained task, which the network is told.
    tables: what of the video is given, and how the rest is filled.
    video: float32 [n t h w 3] in [-1, 1]: one for all samples, or one each.
  """

  task: str
  tables: Tables
  video: np.ndarray


def by_task(model: Model, name: str, video: Any = None) -> Prompt:
  """A clip under a trained task; None where the task reads none.

  Raises:
    ValueError: no such task, or a clip that does not fit.
  """
  if name not in model.tasks:
    raise ValueError(
      f"the checkpoint was not trained for the task {name!r}"
      f"{messages.suggest(name, model.tasks)}; {_trained(model)}"
    )
  own = model.tasks[name]
  if not own.seen.any():
    clip = np.zeros(model.shape, np.float32)
  else:
    clip = as_clip(video, model.shape, prefix(own) or model.shape[0])
  return Prompt(name, own, clip[None])


def from_label(model: Model) -> Prompt:
  """Nothing but a class, or not even that."""
  task = class_task(model)
  if task is None:
    raise ValueError(
      f"this checkpoint was not trained to sample by class; {_trained(model)}"
    )
  return by_task(model, task)


def class_task(model: Model) -> str | None:
  """The task that is given a label alone, or None."""
  for name, own in model.tasks.items():
    if own.label and not own.known.any():
      return name
  return None


def predict(
  model: Model, video: Any, given: int | None, labelled: bool
) -> Prompt:
  """The first `given` frames of a video; None takes the fewest there are."""
  tasks = by_frames(model, prefix, labelled)
  given = choose(model, tasks, given, "predict frames")
  clip = as_clip(video, model.shape, given)
  return Prompt(tasks[given], model.tasks[tasks[given]], clip[None])


def interpolate(model: Model, video: Any, given: int | None) -> Prompt:
  """The first and last `given` frames of a video of any length."""
  tasks = by_frames(model, ends)
  given = choose(model, tasks, given, "interpolate")
  t, h, w, _ = model.shape
  video = pixels(video)
  _check_size(video, (h, w), 2 * given)
  middle = np.repeat(video[given - 1 : given], t - 2 * given, axis=0)
  clip = np.concatenate([video[:given], middle, video[-given:]])
  return Prompt(tasks[given], model.tasks[tasks[given]], clip[None])


def outpaint(model: Model, video: Any) -> Prompt:
  """A video that is smaller than the trained size, in the middle of it."""
  t, h, w, _ = model.shape
  video = pixels(video)
  high, wide = video.shape[1:3]
  if len(video) != t or high > h or wide > w or (high, wide) == (h, w):
    raise ValueError(
      f"a video of shape {video.shape} cannot be outpainted: this checkpoint "
      f"makes {t} frames of {h}x{w} around a video of {t} frames that is "
      "smaller in height, width or both"
    )
  top, left = (h - high) // 2, (w - wide) // 2
  pads = ((0, 0), (top, h - high - top), (left, w - wide - left), (0, 0))
  seen = np.pad(np.ones(video.shape[:3], bool), pads[:3])
  clip = np.pad(video, pads, mode="edge")
  return Prompt(*serve(model, seen), clip[None])


def inpaint(
  model: Model,
  video: Any,
  mask: Any = None,
  box: tuple[int, int, int, int] | None = None,
) -> Prompt:
  """A clip of which a mask, a box or both are made anew; see Sampler.inpaint.

  Raises:
    ValueError: a mask or a box that does not fit or leaves nothing to do.
  """
  shape = model.shape[:3]
  hidden = np.zeros(shape, bool)
  if mask is not None:
    hidden |= as_mask(mask, shape)
  if box is not None:
    top, left, bottom, right = _checked_box(box, shape)
    hidden[:, top:bottom, left:right] = True
  if hidden.all() or not hidden.any():
    raise ValueError(
      f"the mask hides {'every' if hidden.any() else 'no'} pixel; give a mask "
      "or a box=(top, left, bottom, right) that hides a part of the frames"
    )
  clip = as_clip(video, model.shape, shape[0])
  return Prompt(*serve(model, ~hidden), clip[None])


def continued(model: Model, videos: np.ndarray, labelled: bool) -> Prompt:
  """The last frames of videos [n t h w 3], as the start of the next chunk.

  As many of them as the checkpoint was trained to go on from, with labels if
  there is a task for that and `labelled` asks for it.
  """
  tasks = by_frames(model, prefix, labelled)
  told = [n for n, name in tasks.items() if model.tasks[name].label]
  given = max(told if labelled and told else tasks)
  fill = np.repeat(videos[:, -1:], model.shape[0] - given, axis=1)
  clips = np.concatenate([videos[:, -given:], fill], axis=1)
  return Prompt(tasks[given], model.tasks[tasks[given]], clips)


def filled(prompt: Prompt) -> np.ndarray:
  """What the tokenizer is shown of a prompt, float32 [n t h w 3]."""
  rows = task_tables.stack([prompt.tables] * len(prompt.video))
  return np.asarray(jax.jit(task_tables.apply)(rows, prompt.video).video)


def serve(model: Model, seen: np.ndarray) -> tuple[str, Tables]:
  """The task for any seen pixels bool [t h w], and its tables for them.

  The task whose seen pixels are nearest (most in common of those that either
  sees). Where they are the same, its own tables; elsewhere a latent is known
  if it is wholly seen, as in tasks/free_mask.py.

  Raises:
    ValueError: no task gives parts of frames, or no latent is known.
  """
  near = {}
  for name, own in model.tasks.items():
    whole, any_ = own.seen.all((1, 2)), own.seen.any((1, 2))
    if (any_ & ~whole).all():
      near[name] = (own.seen & seen).sum() / (own.seen | seen).sum()
  if not near:
    raise ValueError(
      "this checkpoint was not trained to fill in parts of frames; "
      f"{_trained(model)}"
    )
  name = max(near, key=near.get)
  own = model.tasks[name]
  if near[name] == 1:
    return name, own
  tables = free_mask.from_seen(seen, model.shape, model.grid)
  if not own.black and _is_box(seen):
    tables = task_tables.edges(tables)
  if not tables.known.any():
    raise ValueError(
      "no token lies wholly in what is given of the video, so that nothing "
      "of it would be known; give more of it"
    )
  return name, tables._replace(label=own.label)


def prefix(tables: Tables) -> int:
  """How many first frames a task gives, if it gives those and no others."""
  given = task_tables.given_frames(tables)
  alone = not tables.seen[given:].any()
  return given if alone and given < len(tables.seen) else 0


def ends(tables: Tables) -> int:
  """How many frames a task gives at each end, if it gives those alone."""
  given = task_tables.given_frames(tables)
  whole = tables.seen.all((1, 2))
  expected = np.ones_like(whole)
  expected[given : len(whole) - given] = False
  alone = (tables.seen.any((1, 2)) == expected).all()
  same = alone and (whole == expected).all() and not whole.all()
  return given if same and given else 0


def by_frames(
  model: Model, count: Callable[[Tables], int], labelled: bool = False
) -> dict[int, str]:
  """Numbers of given frames, ascending, each with the task that gives them.

  Of two tasks, the one that is told the label if `labelled`, else the other.
  """
  found: dict[int, str] = {}
  for name, own in model.tasks.items():
    frames = count(own)
    better = frames not in found or bool(own.label) == labelled
    if frames and better:
      found[frames] = name
  return {frames: found[frames] for frames in sorted(found)}


def choose(
  model: Model, tasks: Mapping[int, str], given: int | None, verb: str
) -> int:
  """The number of given frames; ValueError if it was not trained for."""
  if not tasks:
    raise ValueError(
      f"this checkpoint was not trained to {verb}; {_trained(model)}"
    )
  if given is None:
    return next(iter(tasks))
  if given not in tasks:
    raise ValueError(
      f"given={given} frames cannot be given: this checkpoint was trained to "
      f"{verb} from {' or '.join(map(str, tasks))} of {model.shape[0]} frames"
    )
  return given


def as_clip(video: Any, shape: tuple[int, ...], frames: int) -> np.ndarray:
  """The first `frames` frames and repeats of the last, float32 [t h w 3].

  Raises:
    ValueError: another size, too few frames, or, where the whole clip is
      asked for, too many.
  """
  t, h, w = shape[:3]
  video = pixels(video)
  _check_size(video, (h, w), frames)
  if frames == t < len(video):
    raise ValueError(
      f"the video has {len(video)} frames and this checkpoint makes {t}; give "
      f"a clip of {t} of them"
    )
  given = video[:frames]
  return np.concatenate([given, np.repeat(given[-1:], t - frames, axis=0)])


def pixels(video: Any) -> np.ndarray:
  """float32 [t h w 3] in [-1, 1] of uint8 or of such floats.

  Raises:
    ValueError: another shape, type or range.
  """
  video = np.asarray(video)
  if video.ndim != 4 or video.shape[-1] != 3 or not video.size:
    raise ValueError(
      f"a video of shape {video.shape} is not one; it must be [t h w 3]"
    )
  if video.dtype == np.uint8:
    return transforms.to_float(video)
  if not np.issubdtype(video.dtype, np.floating) or not (
    np.abs(video).max() <= 1.001
  ):
    raise ValueError(
      f"pixels are {video.dtype} in [{video.min()}, {video.max()}]; they "
      "must be uint8, or floats in [-1, 1]"
    )
  return video.astype(np.float32)


def as_mask(mask: Any, shape: tuple[int, int, int]) -> np.ndarray:
  """bool [t h w], the pixels to be made, of a mask [h w] or [t h w].

  Raises:
    ValueError: another shape, or neither booleans nor uint8.
  """
  mask = np.asarray(mask)
  if mask.shape not in (shape, shape[1:]):
    raise ValueError(
      f"the mask has shape {mask.shape}; it must be {shape[1:]} (height, "
      f"width) or {shape} (frames, height, width)"
    )
  if mask.dtype == np.uint8:
    mask = mask >= 128
  if mask.dtype != bool:
    raise ValueError(
      f"the mask is {mask.dtype}; it must be bool, or uint8 of which 128 and "
      "more (white) is made anew"
    )
  return np.broadcast_to(mask, shape)


def _checked_box(box: Any, shape: tuple[int, int, int]) -> tuple[int, ...]:
  _, h, w = shape
  top, left, bottom, right = box
  if not (0 <= top < bottom <= h and 0 <= left < right <= w):
    raise ValueError(
      f"box={tuple(box)} is not (top, left, bottom, right) within frames of "
      f"{h}x{w}, bottom and right exclusive"
    )
  return top, left, bottom, right


def _check_size(video: np.ndarray, size: tuple[int, int], frames: int) -> None:
  if video.shape[1:3] != size or len(video) < frames:
    raise ValueError(
      f"a clip of shape {video.shape} does not fit: this checkpoint takes [t "
      f"{size[0]} {size[1]} 3] with at least {frames} frames for this; crop "
      "and resize it, or read it with sample --fit"
    )


def _is_box(seen: np.ndarray) -> bool:
  """Whether bool [t h w] is one box, the same in all frames."""
  rows, cols = seen.any((0, 2)), seen.any((0, 1))
  return bool((seen == (rows[:, None] & cols)).all()) and all(
    (np.diff(np.flatnonzero(line)) == 1).all() for line in (rows, cols)
  )


def _trained(model: Model) -> str:
  return f"its tasks are {', '.join(model.tasks)}"
