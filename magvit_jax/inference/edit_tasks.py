"""The tasks that users ask a generator for: what each reads, and its prompt.

A task is a trained task of the checkpoint by its name, or one of VERBS, for
which a trained task is found (prompts.py). The verb `sample` and the page of
`serve` ask here.
"""

from typing import Any

import numpy as np

from magvit_jax import messages
from magvit_jax.inference import prompts
from magvit_jax.tasks import regions

VERBS = ("predict", "interpolate", "inpaint", "outpaint")
# The inputs of each kind of task. A trained task by its name is of the kind
# 'clip' if it is given a part of a video, else of the kind 'sample'.
INPUTS = {
  "sample": ("label", "frames"),
  "clip": ("video", "frames", "label"),
  "predict": ("video", "given", "frames", "label"),
  "interpolate": ("video", "given"),
  "inpaint": ("video", "mask", "box"),
  "outpaint": ("video", "size"),
}


def kind(model: prompts.Model, task: str) -> str:
  """The key of INPUTS for a task.

  Raises:
    ValueError: neither a trained task nor a verb.
  """
  if task in model.tasks:
    return "clip" if model.tasks[task].seen.any() else "sample"
  if task in VERBS:
    return task
  known = [*model.tasks, *VERBS]
  raise ValueError(
    f"the checkpoint was not trained for the task {task!r}"
    f"{messages.suggest(task, known)}; its tasks are "
    f"{', '.join(model.tasks)}, and the verbs {', '.join(VERBS)} find one of "
    "them"
  )


def served_verbs(model: prompts.Model) -> tuple[str, ...]:
  """Those of VERBS that a trained task of the checkpoint serves."""
  regions_too = _fills_regions(model)
  served = {
    "predict": bool(prompts.by_frames(model, prompts.prefix)),
    "interpolate": bool(prompts.by_frames(model, prompts.ends)),
    "inpaint": regions_too,
    "outpaint": regions_too,
  }
  return tuple(verb for verb in VERBS if served[verb])


def takes_label(model: prompts.Model, task: str) -> bool:
  """True if a class may be given with a task."""
  if task in model.tasks:
    return bool(model.tasks[task].label)
  labelled = [tables for tables in model.tasks.values() if tables.label]
  return task == "predict" and any(map(prompts.prefix, labelled))


def frames_needed(
  model: prompts.Model, task: str, given: int | None = None
) -> int:
  """The least number of frames that a task reads of a video.

  Args:
    model: of the checkpoint.
    task: a trained task that is given a part of a video, or a verb.
    given: frames that 'predict' starts from, or 'interpolate' has at each end;
      None is the least that a trained task gives.

  Raises:
    ValueError: no trained task serves the verb, or gives so many frames.
  """
  t = model.shape[0]
  if task in model.tasks:
    return prompts.prefix(model.tasks[task]) or t
  if task == "predict":
    tasks = prompts.by_frames(model, prompts.prefix)
    return prompts.choose(model, tasks, given, "predict frames")
  if task == "interpolate":
    tasks = prompts.by_frames(model, prompts.ends)
    return 2 * prompts.choose(model, tasks, given, "interpolate")
  return t


def prompt(
  model: prompts.Model,
  task: str,
  video: Any = None,
  *,
  labelled: bool = False,
  given: int | None = None,
  mask: Any = None,
  box: tuple[int, int, int, int] | None = None,
) -> prompts.Prompt:
  """The condition clip of a task.

  Args:
    model: of the checkpoint.
    task: a trained task or a verb.
    video: [n h w 3], what the task reads of it; of 'outpaint' without a mask
      the inner part, smaller than the trained size.
    labelled: whether a label comes with it, for 'predict'.
    given: see `frames_needed`.
    mask: bool or uint8 [h w] or [t h w], the pixels to make, of 'inpaint' and
      'outpaint'.
    box: (top, left, bottom, right), pixels to make, of 'inpaint'.

  Raises:
    ValueError: inputs that do not fit the checkpoint.
  """
  match kind(model, task):
    case "sample" | "clip":
      return prompts.by_task(model, task, video)
    case "predict":
      return prompts.predict(model, video, given, labelled)
    case "interpolate":
      return prompts.interpolate(model, video, given)
    case "outpaint" if mask is None:
      return prompts.outpaint(model, video)
    case _:
      return prompts.inpaint(model, video, mask, box)


def _fills_regions(model: prompts.Model) -> bool:
  """True for a checkpoint that was trained to fill in parts of frames."""
  middle = np.asarray(regions.central(model.shape))
  try:
    prompts.serve(model, ~middle)
  except ValueError:
    return False
  return True
