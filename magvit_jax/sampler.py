"""The generator a user holds: samples of a class, futures of a clip.

  gen = magvit_jax.load_generator("runs/quickstart/generator")
  videos = gen.sample(label="bikes", num=4, seed=0)   # [num t h w 3]
  future = gen.predict(video, frames=1, num=2)        # [num t h w 3]

Videos are float32 in [-1, 1]. `sample_ids` and `predict_ids` stop at the ids,
which `decode` turns into videos. All tasks of a checkpoint share one compiled
program per number of samples and decoding method.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import api, checkpoint, frozen, registry, workdir
from magvit_jax.data import transforms
from magvit_jax.decoding import maskgit
from magvit_jax.stages import generator
from magvit_jax.stages.generator import Net
from magvit_jax.tasks import Tables, TokenCondition
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import PyTree

CHUNK = 16  # samples decoded at once: memory does not grow with `num`

Label = int | str


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
  net = generator.make_net(
    generator=stage["generator"],
    tasks=stage["tasks"],
    dtype=stage["dtype"],
    **frozen.stage_args(config),
  )
  weights = frozen.restore(folder, config)
  return Sampler(
    net,
    checkpoint.load_params(folder, _abstract(net), item="ema", step=step),
    weights,
    tokenizer=api.Codec(net.tokenizer, weights["tokenizer"]),
    labels=config["clips"]["labels"],
    method=maskgit.MaskGIT(**stage["sampling"]),
  )


def _abstract(net: Net) -> PyTree:
  """Shapes of the weights of the generator."""
  ids = jnp.zeros((1, *net.grid, len(net.sizes)), jnp.int32)
  zero = jnp.zeros((1,), jnp.int32)
  cond = TokenCondition(ids, jnp.zeros((1, *net.grid), bool), zero, zero)
  return jax.eval_shape(net.generator.init, jax.random.key(0), ids, cond)


class Sampler:
  """A trained generator with its tokenizer.

  Attributes:
    tokenizer: the `Codec` whose ids it was trained on.
    shape: (t, h, w, 3) of the videos it makes.
    grid: (T, H, W) of their ids.
    labels: names of the classes, in the order of their numbers.
    tasks: `Tables` of the tasks it was trained on, by name.
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
      name: Tables(*(table[k] for table in net.tables))
      for k, name in enumerate(net.names)
    }
    self._params, self._weights = params, weights

    def encode(weights, video):
      return generator.encode(net, weights, video)

    def condition(weights, video, task):
      filled = task_tables.condition(net.tables, task, video)
      return encode(weights, filled.video), filled.known

    def decode(weights, ids):
      return generator.decode(net, weights, ids)

    self._condition = jax.jit(condition)
    self._encode, self._decode = jax.jit(encode), jax.jit(decode)
    self._sample = jax.jit(net.generator.sample, static_argnums=3)

  def sample(
    self,
    label: Label | Sequence[Label] | None = None,
    *,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Videos of a class.

    Args:
      label: number or name of the class, one for all or one per sample; None
        gives no class.
      num: how many samples.
      seed: the same seed gives the same samples.
      **method: changes to `method`, such as steps, guidance, temperature.

    Returns:
      float32 [num t h w 3] in [-1, 1].

    Raises:
      ValueError: the checkpoint knows no such label or cannot sample classes.
      TypeError: the decoding method takes no such argument.
    """
    return self.decode(self.sample_ids(label, num=num, seed=seed, **method))

  def sample_ids(
    self,
    label: Label | Sequence[Label] | None = None,
    *,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Ids int32 [num T H W f] of what `sample` returns."""
    numbers = self.label_numbers(label, num)
    task = self.class_task()
    if task is None:
      raise ValueError(
        "this checkpoint was not trained to sample by class; its tasks are "
        f"{', '.join(self.tasks)}"
      )
    blank = np.zeros(self.shape, np.float32)
    return self._make(task, blank, numbers, seed, method)

  def predict(
    self,
    video: Any,
    *,
    frames: int | None = None,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Futures of a clip.

    Args:
      video: [t h w 3], uint8 or floats in [-1, 1], of the trained height and
        width; its first `frames` frames are given, later ones are not read.
      frames: how many are given: one of `given_frames`; None takes the least.
      num: how many futures.
      seed: the same seed gives the same futures.
      **method: changes to `method`, such as steps, guidance, temperature.

    Returns:
      float32 [num t h w 3] in [-1, 1], whose first frames are the given ones
      as the tokenizer reconstructs them.

    Raises:
      ValueError: a clip of another size or too short, or a number of frames
        that the checkpoint was not trained for.
      TypeError: the decoding method takes no such argument.
    """
    return self.decode(
      self.predict_ids(video, frames=frames, num=num, seed=seed, **method)
    )

  def predict_ids(
    self,
    video: Any,
    *,
    frames: int | None = None,
    num: int = 1,
    seed: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """Ids int32 [num T H W f] of what `predict` returns."""
    frames = self.check_frames(frames)
    clip = self._clip(video, frames)
    numbers = self.label_numbers(None, num)
    task = self.given_frames()[frames]
    return self._make(task, clip, numbers, seed, method)

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Ids [num T H W f] to float32 videos [num t h w 3] in [-1, 1]."""
    parts = [
      self._decode(self._weights, padded)[:count]
      for padded, count in _chunks(np.asarray(ids, np.int32))
    ]
    return np.concatenate([np.asarray(part) for part in parts])

  def reconstruct(self, video: Any) -> np.ndarray:
    """A whole clip [t h w 3] through the tokenizer: the ceiling of futures."""
    clip = self._clip(video, self.shape[0])[None]
    return self.decode(np.asarray(self._encode(self._weights, clip)))[0]

  def given_frames(self) -> dict[int, str]:
    """How many first frames may be given, each with the task that does it."""
    found = {_prefix(tables): name for name, tables in self.tasks.items()}
    return {frames: found[frames] for frames in sorted(found) if frames}

  def class_task(self) -> str | None:
    """The task that samples from a label alone, or None."""
    for name, tables in self.tasks.items():
      if tables.label and not tables.known.any():
        return name
    return None

  def check_frames(self, frames: int | None = None) -> int:
    """The number of given frames; ValueError if it was not trained for."""
    known = self.given_frames()
    if not known:
      raise ValueError(
        "this checkpoint was not trained to predict frames; its tasks are "
        f"{', '.join(self.tasks)}"
      )
    if frames is None:
      return next(iter(known))
    if frames not in known:
      raise ValueError(
        f"frames={frames} cannot be given: this checkpoint was trained to "
        f"predict from {' or '.join(map(str, known))} of {self.shape[0]} frames"
      )
    return frames

  def label_numbers(
    self, label: Label | Sequence[Label] | None, num: int
  ) -> np.ndarray:
    """int32 [num], the number of each sample's class; `len(labels)` is none.

    Raises:
      ValueError: an unknown label, or not one for each sample.
    """
    if num < 1:
      raise ValueError(f"num is {num}; it must be at least 1")
    if label is None:
      return np.full(num, len(self.labels), np.int32)
    single = isinstance(label, (int, str, np.integer))
    many = [label] * num if single else list(label)
    if len(many) != num:
      raise ValueError(
        f"there are {len(many)} labels for num={num} samples; give one label, "
        "or one for each sample"
      )
    return np.array([self._number(one) for one in many], np.int32)

  def _number(self, label: Label) -> int:
    text = str(label)
    if text in self.labels and not isinstance(label, (int, np.integer)):
      return self.labels.index(text)
    if text.isdecimal() and int(text) < len(self.labels):
      return int(text)
    known = ", ".join(
      f"{k} ({name})" if name != str(k) else name
      for k, name in enumerate(self.labels)
    )
    raise ValueError(
      f"the checkpoint knows no label {label!r}"
      f"{registry.suggest(text, self.labels)}; it was trained with {known}"
    )

  def _clip(self, video: Any, frames: int) -> np.ndarray:
    """The given frames and repeats of the last one, float32 [t h w 3]."""
    video = np.asarray(video)
    t, h, w, _ = self.shape
    if video.ndim != 4 or video.shape[1:] != (h, w, 3) or len(video) < frames:
      raise ValueError(
        f"a clip of shape {video.shape} cannot be continued: this checkpoint "
        f"takes [t {h} {w} 3] with at least the {frames} given frames; crop "
        "and resize it, or read it with sample --fit"
      )
    if video.dtype == np.uint8:
      video = transforms.to_float(video)
    elif not np.issubdtype(video.dtype, np.floating) or not (
      np.abs(video).max() <= 1.001
    ):
      raise ValueError(
        f"pixels are {video.dtype} in [{video.min()}, {video.max()}]; they "
        "must be uint8, or floats in [-1, 1]"
      )
    given = video[:frames].astype(np.float32)
    return np.concatenate([given, np.repeat(given[-1:], t - frames, axis=0)])

  def _make(
    self,
    task: str,
    clip: np.ndarray,
    labels: np.ndarray,
    seed: int,
    changes: Mapping[str, Any],
  ) -> np.ndarray:
    """Ids int32 [num T H W f] under a condition clip [t h w 3]."""
    method = self._changed(changes)
    index = np.array([list(self.tasks).index(task)], np.int32)
    ids, known = self._condition(self._weights, clip[None], index)
    made = []
    for k, (part, count) in enumerate(_chunks(labels)):
      rows = len(part)
      cond = TokenCondition(
        ids=jnp.repeat(ids, rows, axis=0),
        known=jnp.repeat(known, rows, axis=0),
        label=jnp.asarray(part),
        task=jnp.repeat(jnp.asarray(index), rows),
      )
      key = jax.random.fold_in(jax.random.key(seed), k)
      out = self._sample(self._params, cond, key, method)
      made.append(np.asarray(out)[:count])
    return np.concatenate(made)

  def _changed(self, changes: Mapping[str, Any]) -> Any:
    fields = [field.name for field in dataclasses.fields(self.method)]
    for name in changes:
      if name not in fields:
        raise TypeError(
          f"decoding takes no {name!r}{registry.suggest(name, fields)}; it "
          f"takes {', '.join(fields)}"
        )
    return dataclasses.replace(self.method, **changes)


def _prefix(tables: Tables) -> int:
  """How many first frames a task gives, if it gives those and no others."""
  given = task_tables.given_frames(tables)
  total = tables.frame.shape[1]
  alone = not tables.seen[given:].any()
  return given if alone and given < total else 0


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
