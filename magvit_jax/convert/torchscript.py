"""Tensors of a TorchScript archive (.jit), of which nothing is run.

Such a file is a zip of code, of raw storages and of data.pkl, a pickle of the
module that names classes by '__torch__.…'. torch.jit.load compiles the code and
can run it; here the pickle is read with a fixed list of what it may name:
modules become plain records of their attributes, tensors become copies of their
storages, and anything else is refused. torch is not needed.
"""

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax import dtypes

from magvit_jax.files import paths, weight_file

SUFFIX = ".jit"
DTYPES = {
  "DoubleStorage": np.float64,
  "FloatStorage": np.float32,
  "HalfStorage": np.float16,
  "BFloat16Storage": dtypes.bfloat16,
  "LongStorage": np.int64,
  "IntStorage": np.int32,
  "ShortStorage": np.int16,
  "CharStorage": np.int8,
  "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}
LISTS = ("build_intlist", "build_tensorlist", "build_doublelist")
LISTS += ("build_boollist",)
# What reading a file raises that is cut short or is something else.
DAMAGE = (zipfile.BadZipFile, EOFError, LookupError, TypeError, ValueError)
DAMAGE += (AttributeError,)


class Record:
  """A module of the archive; unpickling sets its attributes."""


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The tensors of an archive by the names of its state_dict.

  Tables that modules make themselves are among them, as TorchScript stores
  those as well.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no such archive, a damaged one, or one whose pickle names more
      than modules and tensors.
  """
  path = paths.as_path(path)
  weight_file.check_there(path, "--input")
  try:
    with zipfile.ZipFile(path) as archive:
      module = _Unpickler(archive).load()
  except pickle.UnpicklingError as error:
    raise ValueError(
      f"{path} is refused: {error}. Where you trust it, save its tensors "
      "alone: torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
    ) from error
  except DAMAGE as error:
    raise ValueError(
      f"{path} is damaged or no archive of TorchScript ({error}); copy it again"
    ) from error
  return dict(_tensors(module, ""))


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
  if isinstance(module, np.ndarray):
    yield prefix, module
  elif isinstance(module, Record):
    for name, value in vars(module).items():
      yield from _tensors(value, f"{prefix}.{name}" if prefix else name)


class _Unpickler(pickle.Unpickler):
  """Reads data.pkl; what it may name is what `find_class` returns."""

  def __init__(self, archive: zipfile.ZipFile):
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
    if len(pickles) != 1:
      raise KeyError(f"it has {len(pickles)} files data.pkl")
    self.archive, self.folder = archive, pickles[0].removesuffix("data.pkl")
    super().__init__(io.BytesIO(archive.read(pickles[0])))

  def find_class(self, module: str, name: str) -> Any:
    if module.split(".")[0] == "__torch__":
      return Record
    if module == "torch" and name in DTYPES:
      return DTYPES[name]
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _rebuild
    if module == "torch.jit._pickle" and name in LISTS:
      return list
    if (module, name) == ("collections", "OrderedDict"):
      return dict
    raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read")

  def persistent_load(self, pid: Any) -> np.ndarray:
    _, dtype, key, _, count = pid
    raw = self.archive.read(f"{self.folder}data/{key}")
    dtype = np.dtype(dtype)
    if len(raw) < count * dtype.itemsize:
      raise EOFError(f"storage {key} ends early")
    return np.frombuffer(raw, dtype, count)


def _rebuild(
  storage: np.ndarray,
  offset: int,
  size: tuple[int, ...],
  stride: tuple[int, ...],
  *rest: Any,
) -> np.ndarray:
  """A tensor as a copy of a part of its storage."""
  del rest
  if 0 in size:
    return np.zeros(size, storage.dtype)
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if min(offset, *size, *stride, 0) < 0 or last >= len(storage):
    raise pickle.UnpicklingError("a tensor lies outside of its storage")
  steps = [s * storage.itemsize for s in stride]
  part = np.lib.stride_tricks.as_strided(storage[offset:], size, steps)
  whole = storage.dtype == dtypes.bfloat16  # numpy has none of its own
  return part.astype(np.float32) if whole else part.copy()
