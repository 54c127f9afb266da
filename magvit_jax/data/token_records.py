"""Records of tokens: clips that `encode --split` has already tokenised.

  python -m magvit_jax encode --workdir=TOKENIZER --split=train train.npz

A record file is an .npz that opens with numpy alone: `ids` [N T H W f] in the
smallest unsigned type, `label` and `file_index` int32 [N], the names
`labels` and `files`, `shape` (t, h, w, 3) of the clips, and `sizes` and
`fingerprint` of the tokenizer.
"""

import dataclasses
import os
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from magvit_jax import token_file


class Records(NamedTuple):
  """What a record file holds; see the module for shapes."""

  ids: np.ndarray
  label: np.ndarray
  file_index: np.ndarray
  labels: tuple[str, ...]
  files: tuple[str, ...]
  shape: tuple[int, ...]
  sizes: tuple[int, ...]
  fingerprint: str


def write(path: str | os.PathLike[str], records: Records) -> None:
  """Writes records; the file appears under its name when it is whole.

  Raises:
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  arrays = {k: np.asarray(v) for k, v in records._asdict().items()}
  arrays["ids"] = arrays["ids"].astype(token_file.id_type(records.sizes))
  try:
    with part.open("wb") as file:
      np.savez_compressed(file, **arrays)
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> Records:
  """Reads a record file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not a file of records.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in Records._fields}
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f"{path} is not a file of token records ({error}); "
      "`python -m magvit_jax encode --split=train` writes them"
    ) from error
  names = {k: tuple(arrays[k].tolist()) for k in ("labels", "files")}
  shapes = {k: tuple(arrays[k].tolist()) for k in ("shape", "sizes")}
  return Records(
    ids=arrays["ids"],
    label=arrays["label"].astype(np.int32),
    file_index=arrays["file_index"].astype(np.int32),
    fingerprint=str(arrays["fingerprint"]),
    **names,
    **shapes,
  )


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
    if not pathlib.Path(path).is_file():
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
    self.fingerprint = records.fingerprint

  @property
  def ids_shape(self) -> tuple[int, ...]:
    """(T, H, W, f) of every clip."""
    return self._records.ids.shape[1:]

  def __len__(self) -> int:
    return len(self._records.ids)

  def clip(self, i: int, rng: np.random.Generator) -> dict:
    """Clip i: 'ids' int32 [T H W f], 'label', 'file' and 'name'."""
    del rng
    records = self._records
    return dict(
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
