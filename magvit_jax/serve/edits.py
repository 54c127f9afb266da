"""What a generator makes of a clip, as the verb `sample` does it."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from magvit_jax import messages
from magvit_jax.data import transforms
from magvit_jax.inference import edit_tasks, prompts
from magvit_jax.report import steps
from magvit_jax.serve import uploads

VERBS = {
  "predict": "predict what comes next",
  "interpolate": "interpolate between the ends",
  "inpaint": "inpaint: make the box anew",
  "outpaint": "outpaint: make all but the box",
}
MOST = 4  # samples at a time
FPS = Fraction(8)  # of what has no video to take it from


class Wish(NamedTuple):
  """What is to be made.

  Attributes:
    task: one of `choices`.
    label: name or number of a class; None is none.
    start: seconds of the upload at which the clip begins.
    box: (top, left, bottom, right) in parts of the frame, 0 to 1.
    num: samples.
    seed: of the samples.
    method: changes to how ids are decoded.
  """

  task: str
  label: str | None = None
  start: float = 0.0
  box: tuple[float, float, float, float] | None = None
  num: int = 1
  seed: int = 0
  method: Mapping[str, Any] = {}


class Edit(NamedTuple):
  """What was made.

  Attributes:
    videos: uint8 [n h w 3], each with its name: the clip where there is one,
      what of it was given, and the samples.
    fps: of all of them.
    task: trained task that did it.
    known: share of the tokens that were given.
  """

  videos: list[tuple[str, np.ndarray]]
  fps: Fraction
  task: str
  known: float


def choices(gen: Any) -> dict[str, str]:
  """What can be asked of a `Sampler`: each task with what is said of it."""
  verbs = {name: VERBS[name] for name in edit_tasks.served_verbs(gen.model)}
  return verbs | {name: f"task {name}" for name in gen.tasks}


def reads_clip(gen: Any, task: str) -> bool:
  """True for a task that is given a part of a video."""
  return "video" in edit_tasks.INPUTS[edit_tasks.kind(gen.model, task)]


def reads_box(task: str) -> bool:
  """True for a task whose known part of the video is drawn as a box."""
  return task in ("inpaint", "outpaint")


def edit(gen: Any, clip: uploads.Clip | None, wish: Wish) -> Edit:
  """Makes what is wished for.

  Args:
    gen: a `Sampler`.
    clip: read for its shape; None for tasks that read none.
    wish: the task and its settings.

  Raises:
    ValueError: a wish that does not fit the checkpoint or the clip.
  """
  messages.check_choice("task", wish.task, tuple(choices(gen)))
  if not 1 <= wish.num <= MOST:
    raise ValueError(f"samples is {wish.num}; it must be 1 to {MOST}")
  video = _part(gen, clip, wish) if reads_clip(gen, wish.task) else None
  prompt = _prompt(gen, video, wish)
  label = wish.label if edit_tasks.takes_label(gen.model, wish.task) else None
  labels = gen.label_numbers(label, wish.num, prompt.task)
  ids = gen.complete(prompt, labels, seed=wish.seed, **wish.method)
  made = transforms.to_uint8(gen.decode(ids))
  fps = clip.fps if video is not None and len(video) > 1 else FPS
  shown = []
  if video is not None:
    shown = [("original", video), ("given", _given(prompt))]
  shown += [(f"made, sample {k + 1}", one) for k, one in enumerate(made)]
  return Edit(shown, fps, prompt.task, float(prompt.tables.known.mean()))


def _part(gen: Any, clip: uploads.Clip | None, wish: Wish) -> np.ndarray:
  """The frames of an upload that a task reads, uint8 [n h w 3], n <= t."""
  if clip is None:
    raise ValueError("this task is given a video: upload one first")
  first, most = int(wish.start * clip.fps), gen.shape[0]
  video = clip.fitted[first : first + most]
  need = edit_tasks.frames_needed(gen.model, wish.task)
  if len(video) < need:
    raise ValueError(
      f"{clip.name} has {len(video)} frames from {wish.start:g} s on, of the "
      f"{len(clip.video)} that were read; {wish.task} needs {need}: begin "
      "earlier, or give a longer video"
    )
  return video


def _prompt(gen: Any, video: np.ndarray | None, wish: Wish) -> prompts.Prompt:
  """The condition clip; a box is what 'inpaint' makes, or 'outpaint' keeps."""
  mask = None
  if reads_box(wish.task):
    mask = _in_box(wish.box, gen.shape[1:3])
    mask = mask if wish.task == "inpaint" else ~mask
  labelled = wish.label is not None
  return edit_tasks.prompt(
    gen.model, wish.task, video, labelled=labelled, mask=mask
  )


def _in_box(box: tuple[float, ...] | None, size: tuple[int, int]) -> np.ndarray:
  """bool [h w], the pixels in a box that is given in parts of the frame."""
  if box is None:
    raise ValueError("draw a box on the picture first")
  h, w = size
  sides = np.clip(box, 0, 1) * (h, w, h, w)
  top, left, bottom, right = (round(float(side)) for side in sides)
  inside = np.zeros((h, w), bool)
  inside[top:bottom, left:right] = True
  return inside


def _given(prompt: prompts.Prompt) -> np.ndarray:
  """What a prompt gives of its clip, uint8 [t h w 3]; the rest is grey."""
  video = transforms.to_uint8(prompt.video[0])
  return np.where(prompt.tables.seen[..., None], video, np.uint8(steps.GREY))
