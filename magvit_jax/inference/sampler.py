"""The generator a user holds: samples of a class, and edits of a clip.

  gen = magvit_jax.load_generator("runs/quickstart/generator")
  videos = gen.sample(label="bikes", num=4, seed=0)   # [num t h w 3]
  future = gen.predict(video, frames=100)             # goes on from its start
  between = gen.interpolate(video)                    # from its two ends
  larger = gen.outpaint(small)                        # to the trained size
  mended = gen.inpaint(video, box=(8, 8, 40, 40))     # or mask=[h w]

Videos are float32 in [-1, 1]. Whatever is given of a clip comes back as the
tokenizer reconstructs it. All tasks of a checkpoint share one compiled program
per number of samples and decoding method; sample k depends on the seed and on k
alone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from magvit_jax.checkpoints import frozen_params, saved_weights
from magvit_jax.decoding import maskgit
from magvit_jax.files import paths, workdirs
from magvit_jax.inference import (
  class_labels,
  generate,
  long_video,
  prompts,
  video_codec,
)
from magvit_jax.inference.class_labels import Label
from magvit_jax.stages import _generator_model
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import PyTree


def load_generator(
  folder: str | os.PathLike[str], *, step: int | None = None
) -> "Sampler":
  """Loads the generator that was trained in a workdir, with its tokenizer.

  Nothing but the workdir is read: it holds the weights of the tokenizer too.

  Args:
    folder: workdir of a run whose stage is `generator`, or an export of one.
    step: checkpoint to load; None takes the newest whole one.

  Returns:
    A `Sampler` with the moving average of the weights.

  Raises:
    FileNotFoundError: no such workdir, or it has no checkpoint.
    ValueError: the run in it did not train a generator.
  """
  config = saved_weights.config(folder)
  stage = config["stage"]
  if stage["name"] != "generator":
    raise ValueError(
      f"{os.fspath(folder)} holds a run of the stage {stage['name']!r}; "
      "load_generator needs one of the stage 'generator'"
    )
  with workdirs.blaming(folder):
    net = _generator_model.make_net(
      generator=stage["generator"],
      tasks=stage["tasks"],
      dtype=stage["dtype"],
      **frozen_params.stage_args(config),
    )
  key = jax.random.key(0)
  shapes = jax.eval_shape(lambda: _generator_model.init(net, key))
  weights = load_weights(folder, config, shapes, step)
  return Sampler(
    net,
    weights.pop("generator"),
    weights,
    tokenizer=video_codec.Codec(net.tokenizer, weights["tokenizer"]),
    labels=config["clips"]["labels"],
    method=maskgit.MaskGIT(**stage["sampling"]),
  )


def load_weights(
  folder: paths.Name, config: Mapping[str, Any], own: PyTree, step: int | None
) -> PyTree:
  """{'generator': averaged weights, 'tokenizer': those it was trained on}.

  Args:
    folder: workdir of a generator, or an export of one.
    config: its resolved config.
    own: shapes of the generator's weights.
    step: as in `load_generator`.
  """
  if saved_weights.is_folder(folder):
    both = {"generator": own, **frozen_params.shapes(config)}
    return saved_weights.weights(folder, both, step)
  tokenizer = frozen_params.restore(folder, config)
  return {"generator": saved_weights.weights(folder, own, step), **tokenizer}


class Sampler(generate.Completer):
  """A trained generator with its tokenizer, and verbs; see also `Completer`.

  The verbs take, beside what is said at each of them, `num` (how many samples),
  `seed` (the same one gives the same samples) and changes to `method` by name,
  such as steps, guidance or temperature. They return float32 [num t h w 3] in
  [-1, 1], and raise ValueError for what does not fit the checkpoint and
  TypeError for a change that the decoding method does not take.
  """

  def sample(
    self,
    label: Label | Sequence[Label] | None = None,
    *,
    frames: int | None = None,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Videos of a class.

    Args:
      label: number or name of the class, one for all or one per sample; None
        gives no class.
      frames: of the video, any number; None is that of a clip.
    """
    prompt = prompts.from_label(self.model)
    return self._video(prompt, label, frames, num, seed, method)

  def predict(
    self,
    video: Any,
    *,
    given: int | None = None,
    frames: int | None = None,
    label: Label | Sequence[Label] | None = None,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Futures of a clip.

    Args:
      video: [t h w 3], uint8 or floats in [-1, 1], of the trained height and
        width; its first `given` frames are given, later ones are not read.
      given: one of `given_frames`; None takes the least.
      frames: of the whole video, any number; None is that of a clip. Memory
        beyond the result does not grow with it; long_video.stream gives it
        piece by piece.
      label: of the class, where the checkpoint was trained with it.
    """
    prompt = prompts.predict(self.model, video, given, label is not None)
    return self._video(prompt, label, frames, num, seed, method)

  def interpolate(
    self,
    video: Any,
    *,
    given: int | None = None,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Clips between the first and the last frames of a video.

    Args:
      video: [n h w 3] as in `predict`; two frames are enough.
      given: frames given at each end; None takes the least that was trained.
    """
    prompt = prompts.interpolate(self.model, video, given)
    return self._video(prompt, None, None, num, seed, method)

  def outpaint(
    self, video: Any, *, num: int = 1, seed: int = 0, **method: Any
  ) -> np.ndarray:
    """Clips of the trained size around a smaller one.

    Args:
      video: [t a b 3] as in `predict`, a <= h and b <= w; it comes into the
        middle. The trained task whose region is nearest does it.
    """
    prompt = prompts.outpaint(self.model, video)
    return self._video(prompt, None, None, num, seed, method)

  def inpaint(
    self,
    video: Any,
    *,
    mask: Any = None,
    box: tuple[int, int, int, int] | None = None,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Clips of which a part is made anew.

    Args:
      video: [t h w 3] as in `predict`.
      mask: [h w] or [t h w], bool or uint8: True, or 128 and more, is made
        anew; None hides nothing.
      box: (top, left, bottom, right), ends exclusive, made anew in all frames,
        beside the mask if there is one; None hides nothing.
    """
    prompt = prompts.inpaint(self.model, video, mask, box)
    return self._video(prompt, None, None, num, seed, method)

  def reconstruct(self, video: Any) -> np.ndarray:
    """A whole clip [t h w 3] through the tokenizer: the ceiling of futures."""
    clip = prompts.as_clip(video, self.shape, self.shape[0])[None]
    return self.decode(np.asarray(self._encode(self._weights, clip)))[0]

  def given_frames(self) -> dict[int, str]:
    """How many first frames may be given, each with the task that does it."""
    return prompts.by_frames(self.model, prompts.prefix)

  def label_numbers(
    self,
    label: Label | Sequence[Label] | None,
    num: int,
    task: str | None = None,
  ) -> np.ndarray:
    """int32 [num], as class_labels.numbers says.

    Raises:
      ValueError: also for labels of a `task` that was trained without.
    """
    if label is not None and task is not None and not self.tasks[task].label:
      told = [name for name, own in self.tasks.items() if own.label]
      raise ValueError(
        f"the task {task} was trained without labels; leave out the label (it "
        f"is given to {', '.join(told) or 'no task of this checkpoint'})"
      )
    return class_labels.numbers(label, num, self.labels)

  def stream(
    self,
    prompt: prompts.Prompt,
    labels: np.ndarray,
    *,
    frames: int | None = None,
    seed: int = 0,
    **method: Any,
  ) -> Iterator[long_video.Chunk]:
    """A video of `frames` frames in pieces; see long_video.stream.

    Prompts are made by editing.py, `labels` by `label_numbers`.
    """
    given = task_tables.given_frames(prompt.tables)
    self._changed(method)
    return long_video.stream(
      self,
      prompt,
      labels,
      frames=long_video.check(self, frames, given),
      seed=seed,
      method=method,
    )

  def _video(
    self,
    prompt: prompts.Prompt,
    label: Label | Sequence[Label] | None,
    frames: int | None,
    num: int,
    seed: int,
    method: Mapping[str, Any],
  ) -> np.ndarray:
    labels = self.label_numbers(label, num, prompt.task)
    pieces = self.stream(prompt, labels, frames=frames, seed=seed, **method)
    return np.concatenate([piece.video for piece in pieces], axis=1)
