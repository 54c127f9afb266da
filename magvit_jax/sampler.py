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

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import (
  api,
  checkpoint,
  class_labels,
  editing,
  frozen,
  long_video,
  registry,
  workdir,
)
from magvit_jax.class_labels import Label
from magvit_jax.decoding import maskgit
from magvit_jax.stages import futures, token_net
from magvit_jax.stages.token_net import Net
from magvit_jax.tasks import TokenCondition
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import PyTree

CHUNK = 16  # samples decoded at once: memory does not grow with `num`


def load_generator(
  folder: str | os.PathLike[str], *, step: int | None = None
) -> "Sampler":
  """Loads the generator that was trained in a workdir, with its tokenizer.

  Nothing but the workdir is read: it holds the weights of the tokenizer too.

  Args:
    folder: workdir of a run whose stage is `generator`.
    step: checkpoint to load; None takes the newest whole one.

  Returns:
    A `Sampler` with the moving average of the weights.

  Raises:
    FileNotFoundError: no such workdir, or it has no checkpoint.
    ValueError: the run in it did not train a generator.
  """
  config = registry.plain(workdir.read_config(folder)["config"])
  stage = config["stage"]
  if stage["name"] != "generator":
    raise ValueError(
      f"{os.fspath(folder)} holds a run of the stage {stage['name']!r}; "
      "load_generator needs one of the stage 'generator'"
    )
  net = token_net.make_net(
    generator=stage["generator"],
    tasks=stage["tasks"],
    dtype=stage["dtype"],
    **frozen.stage_args(config),
  )
  weights = frozen.restore(folder, config)
  key = jax.random.key(0)
  shapes = jax.eval_shape(lambda: token_net.init(net, key))
  return Sampler(
    net,
    checkpoint.load_params(folder, shapes, item="ema", step=step),
    weights,
    tokenizer=api.Codec(net.tokenizer, weights["tokenizer"]),
    labels=config["clips"]["labels"],
    method=maskgit.MaskGIT(**stage["sampling"]),
  )


class Sampler:
  """A trained generator with its tokenizer.

  Its verbs take, beside what is said at each of them, `num` (how many samples),
  `seed` (the same one gives the same samples) and changes to `method` by name,
  such as steps, guidance or temperature. They return float32 [num t h w 3] in
  [-1, 1], and raise ValueError for what does not fit the checkpoint and
  TypeError for a change that the decoding method does not take.

  Attributes:
    tokenizer: the `Codec` whose ids it was trained on.
    shape: (t, h, w, 3) of the clips it makes.
    grid: (T, H, W) of their ids.
    labels: names of the classes, in the order of their numbers.
    tasks: `Tables` of the tasks it was trained on, by name.
    model: the last three, which prompts are checked against.
    method: how ids are decoded unless a call says otherwise.
  """

  def __init__(
    self,
    net: Net,
    params: PyTree,
    weights: PyTree,
    *,
    tokenizer: Any,
    labels: Sequence[str],
    method: Any,
  ):
    """Puts the parts together; `load_generator` reads them from a workdir.

    Args:
      net: what the stage `generator` builds from a config.
      params: the generator's weights.
      weights: {'tokenizer': params}.
      tokenizer: a `Codec` of them.
      labels: names of the classes.
      method: frozen dataclass of decoding/.
    """
    self.tokenizer, self.labels, self.method = tokenizer, tuple(labels), method
    self.shape, self.grid = net.shape, net.grid
    self.tasks = {
      name: token_net.table_of(net.tables, k)
      for k, name in enumerate(net.names)
    }
    self.model = editing.Model(self.shape, self.grid, self.tasks)
    self._params, self._weights = params, weights

    def encode(weights, video):
      return token_net.encode(net, weights, video)

    def condition(weights, video, own):
      rows = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (len(video), *jnp.shape(x))), own
      )
      return encode(weights, task_tables.apply(rows, video).video)

    def decode(weights, ids):
      return token_net.decode(net, weights, ids)

    def sample(params, cond, key, number, method):
      keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(number)
      run = futures.each(lambda p, c, k: net.generator.sample(p, c, k, method))
      return run(params, cond, keys)

    self._condition = jax.jit(condition)
    self._encode, self._decode = jax.jit(encode), jax.jit(decode)
    self._sample = jax.jit(sample, static_argnums=4)

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
    prompt = editing.from_label(self.model)
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
    prompt = editing.predict(self.model, video, given, label is not None)
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
    prompt = editing.interpolate(self.model, video, given)
    return self._video(prompt, None, None, num, seed, method)

  def outpaint(
    self, video: Any, *, num: int = 1, seed: int = 0, **method: Any
  ) -> np.ndarray:
    """Clips of the trained size around a smaller one.

    Args:
      video: [t a b 3] as in `predict`, a <= h and b <= w; it comes into the
        middle. The trained task whose region is nearest does it.
    """
    prompt = editing.outpaint(self.model, video)
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
    prompt = editing.inpaint(self.model, video, mask, box)
    return self._video(prompt, None, None, num, seed, method)

  def complete(
    self,
    prompt: editing.Prompt,
    labels: np.ndarray,
    *,
    seed: int = 0,
    chunk: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """The ids that every verb is made of.

    Args:
      prompt: of editing.py.
      labels: int32 [num], which a task that was trained without is not told.
      seed: of the samples.
      chunk: which chunk of a long video, each with draws of its own.

    Returns:
      int32 [num T H W f].
    """
    method = self._changed(method)
    index = list(self.tasks).index(prompt.task)
    key = jax.random.fold_in(jax.random.key(seed), chunk)
    if not self.tasks[prompt.task].label:
      labels = np.full_like(labels, len(self.labels))
    made = []
    for part, count in _chunks(np.arange(len(labels))):
      clips = prompt.video if len(prompt.video) == 1 else prompt.video[part]
      ids = self._condition(self._weights, clips, prompt.tables)
      shape = (len(part), *ids.shape[1:])
      cond = TokenCondition(
        ids=jnp.broadcast_to(ids, shape),
        known=jnp.broadcast_to(prompt.tables.known, shape[:-1]),
        label=jnp.asarray(labels[part]),
        task=jnp.full(len(part), index, jnp.int32),
      )
      out = self._sample(self._params, cond, key, part, method)
      made.append(np.asarray(out)[:count])
    return np.concatenate(made)

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Ids [num T H W f] to float32 videos [num t h w 3] in [-1, 1]."""
    parts = [
      self._decode(self._weights, padded)[:count]
      for padded, count in _chunks(np.asarray(ids, np.int32))
    ]
    return np.concatenate([np.asarray(part) for part in parts])

  def reconstruct(self, video: Any) -> np.ndarray:
    """A whole clip [t h w 3] through the tokenizer: the ceiling of futures."""
    clip = editing.as_clip(video, self.shape, self.shape[0])[None]
    return self.decode(np.asarray(self._encode(self._weights, clip)))[0]

  def given_frames(self) -> dict[int, str]:
    """How many first frames may be given, each with the task that does it."""
    return editing.by_frames(self.model, editing.prefix)

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
    prompt: editing.Prompt,
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
    prompt: editing.Prompt,
    label: Label | Sequence[Label] | None,
    frames: int | None,
    num: int,
    seed: int,
    method: Mapping[str, Any],
  ) -> np.ndarray:
    labels = self.label_numbers(label, num, prompt.task)
    pieces = self.stream(prompt, labels, frames=frames, seed=seed, **method)
    return np.concatenate([piece.video for piece in pieces], axis=1)

  def _changed(self, changes: Mapping[str, Any]) -> Any:
    fields = [field.name for field in dataclasses.fields(self.method)]
    for name in changes:
      if name not in fields:
        raise TypeError(
          f"decoding takes no {name!r}{registry.suggest(name, fields)}; it "
          f"takes {', '.join(fields)}"
        )
    return dataclasses.replace(self.method, **changes)


def _chunks(array: np.ndarray) -> list[tuple[np.ndarray, int]]:
  """Parts of at most CHUNK rows, each with how many of its rows count.

  The last one of many is filled up, so that it runs in the same program.
  """
  if len(array) <= CHUNK:
    return [(array, len(array))]
  parts = [array[i : i + CHUNK] for i in range(0, len(array), CHUNK)]
  last = parts[-1]
  fill = np.repeat(last[-1:], CHUNK - len(last), axis=0)
  return [(p, CHUNK) for p in parts[:-1]] + [
    (np.concatenate([last, fill]), len(last))
  ]
