"""Records of tokens: clips that `encode --split` has already tokenised.

  python -m magvit_jax encode --workdir=TOKENIZER --split=train train.npz

A record file is an .npz that opens with numpy alone: `ids` [N T H W f] in the
smallest unsigned type, `label` and `file_index` int32 [N], the names
`labels` and `files`, `shape` (t, h, w, 3) of the clips, and `sizes` and
`fingerprint` of the tokenizer.

With `--tasks=CONFIG` it also has `conditions` [N K T H W f], the ids of the
condition clips of those K tasks of the config that need them, and `tasks`, the
JSON of their names and arguments. COMMIT's interior tokens come from pixels;
but what a causal tokenizer is given of the first frames it finds in `ids`, so
that class_cond and frame_prediction need no more.
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from magvit_jax import registry
from magvit_jax.files import paths, token_file
from magvit_jax.tasks import tables as task_tables


class Records(NamedTuple):
  """What a record file holds; see the module for shapes."""

  ids: np.ndarray
  conditions: np.ndarray
  tasks: dict[str, dict[str, Any]]
  label: np.ndarray
  file_index: np.ndarray
  labels: tuple[str, ...]
  files: tuple[str, ...]
  shape: tuple[int, ...]
  sizes: tuple[int, ...]
  fingerprint: str


def write(path: paths.Name, records: Records) -> None:
  """Writes records; the file appears under its name when it is whole.

  Raises:
    OSError: the file cannot be written.
  """
  fields = {**records._asdict(), "tasks": json.dumps(records.tasks)}
  arrays = {k: np.asarray(v) for k, v in fields.items()}
  for name in ("ids", "conditions"):
    arrays[name] = arrays[name].astype(token_file.id_type(records.sizes))
  with paths.writing(paths.as_path(path)) as part, part.open("wb") as file:
    np.savez_compressed(file, **arrays)


def read(path: paths.Name) -> Records:
  """Reads a record file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not a file of records.
  """
  try:
    with (
      paths.as_path(path).open("rb") as part,
      np.load(part, allow_pickle=False) as file,
    ):
      arrays = {name: file[name] for name in Records._fields}
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f"{path} is not a file of token records, or an old one ({error}); "
      "`python -m magvit_jax encode --split=train` writes them"
    ) from error
  names = {k: tuple(arrays[k].tolist()) for k in ("labels", "files")}
  shapes = {k: tuple(arrays[k].tolist()) for k in ("shape", "sizes")}
  return Records(
    ids=arrays["ids"],
    conditions=arrays["conditions"],
    tasks=registry.plain(json.loads(str(arrays["tasks"]))),
    label=arrays["label"].astype(np.int32),
    file_index=arrays["file_index"].astype(np.int32),
    fingerprint=str(arrays["fingerprint"]),
    **names,
    **shapes,
  )


def arguments(task: Mapping[str, Any]) -> dict[str, Any]:
  """What of a task's config its condition clips depend on."""
  return {k: v for k, v in registry.plain(task).items() if k != "weight"}


def _task(name: str, args: Mapping[str, Any]) -> Any:
  return registry.build("tasks", {"name": name, **args})


@dataclasses.dataclass
class Source:
  """Records as a source of ids in place of pixels.

  Attributes:
    split: 'train' or 'eval'.
    train: record file of the split 'train'.
    eval: record file of the split 'eval'.
    on_corrupt: nothing here can be unreadable once it is open.
  """

  split: str
  train: str
  eval: str
  on_corrupt: str = "raise"

  def __post_init__(self):
    if self.split not in ("train", "eval"):
      raise ValueError(f"split is {self.split!r}; it is 'train' or 'eval'")
    path = self.train if self.split == "train" else self.eval
    if not paths.as_path(path).is_file():
      raise FileNotFoundError(
        f"data.{self.split}: there is no file {path!r}; write one with "
        f"`python -m magvit_jax encode --split={self.split}`"
      )
    records = read(path)
    if not len(records.ids):
      raise ValueError(f"data.{self.split}: {path} holds no clips; encode some")
    self._records = records
    self.files, self.labels = records.files, records.labels
    self.shape, self.sizes = records.shape, records.sizes
    self.fingerprint, self.tasks = records.fingerprint, records.tasks

  @property
  def ids_shape(self) -> tuple[int, ...]:
    """(T, H, W, f) of every clip."""
    return self._records.ids.shape[1:]

  @property
  def conditions(self) -> tuple[str, ...]:
    """The arrays beside 'ids' that a clip has."""
    return tuple(map(task_tables.ids_key, self.tasks))

  def check_tasks(
    self, needs: tuple[str, ...], tasks: Mapping[str, Mapping[str, Any]]
  ) -> None:
    """ValueError if the records cannot serve a run.

    Args:
      needs: tasks of the run whose condition clips have ids of their own.
      tasks: arguments of all tasks of the run.
    """
    for name in needs:
      wanted = arguments(tasks[name])
      if name in self.tasks and _task(name, self.tasks[name]) == _task(
        name, wanted
      ):
        continue
      held = [f"{k} {v or ''}".strip() for k, v in self.tasks.items()]
      raise ValueError(
        f"the records cannot serve the task {name} {wanted or ''}: its "
        "condition clips have ids of their own, and the records hold those of "
        f"{', '.join(held) or 'no task'}. Write them with `encode --split=… "
        "--tasks=CONFIG` and the config of this run, train on videos, or "
        "leave the task out"
      )

  def __len__(self) -> int:
    return len(self._records.ids)

  def clip(self, i: int, rng: np.random.Generator) -> dict:
    """Clip i: 'ids' int32 [T H W f], `conditions`, 'label', 'file', 'name'."""
    del rng
    records = self._records
    conditions = records.conditions[i].astype(np.int32)
    return dict(
      **dict(zip(self.conditions, conditions, strict=True)),
      ids=records.ids[i].astype(np.int32),
      label=int(records.label[i]),
      file=int(records.file_index[i]),
      name=records.files[records.file_index[i]],
    )

  def split_report(self) -> dict[str, dict[str, int]]:
    """Clips of each file on this side of the split."""
    counts = np.bincount(self._records.file_index, minlength=len(self.files))
    return {
      name: {self.split: int(count)}
      for name, count in zip(self.files, counts, strict=True)
    }
