"""Files of weights: safetensors or npz, with names such as 'net/head/bias'.

`convert` writes them, frozen.py reads them. No pickle is opened here.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from magvit_jax import tree_utils
from magvit_jax.files import paths
from magvit_jax.types import PyTree

KINDS = (".safetensors", ".npz")
SHOWN = 3  # mismatches that an error lists


def read(
  path: paths.Name,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads (arrays by name, notes by name).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: neither kind of file, or a damaged one.
  """
  path = paths.as_path(path)
  if path.suffix not in KINDS:
    raise ValueError(
      f"{path}: weights are read from {' or '.join(KINDS)}; turn other files "
      "into one with `python -m magvit_jax convert`"
    )
  check_there(path, "weights")
  try:
    with paths.reading(path) as local:
      return _read(local)
  # Damaged bytes make zipfile, zlib and numpy raise nearly anything.
  except Exception as error:
    raise ValueError(
      f"{path} is damaged or no file of weights ({error}); copy or convert it "
      "again"
    ) from error


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  if path.suffix == ".npz":
    # Opened here, as numpy leaves a damaged file open.
    with path.open("rb") as part, np.load(part, allow_pickle=False) as file:
      return dict(file), {}
  with safetensors.safe_open(path, framework="numpy") as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}
    return arrays, file.metadata() or {}


def check_there(path: paths.Name, what: str) -> None:
  """FileNotFoundError if `path`, which is given as `what`, is no file."""
  if not paths.as_path(path).is_file():
    raise FileNotFoundError(
      f"{what}: there is no file {path}; `python -m magvit_jax convert --help` "
      "says how files of weights are made"
    )


def write(
  path: paths.Name,
  arrays: Mapping[str, np.ndarray],
  notes: Mapping[str, str],
) -> None:
  """Writes a safetensors file; it appears under its name when it is whole."""
  whole = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
  with paths.writing(paths.as_path(path)) as part:
    safetensors.numpy.save_file(whole, part, dict(notes))


def fit(
  arrays: Mapping[str, np.ndarray], abstract: PyTree, what: str
) -> PyTree:
  """The arrays in the tree of `abstract`, as float32.

  Args:
    arrays: by flat name.
    abstract: tree of ShapeDtypeStructs.
    what: names the weights and where they are from, for errors.

  Raises:
    ValueError: a name or a shape is another; the first three are listed.
  """
  wanted = tree_utils.named(abstract)
  wrong = [
    f"{name}: {_shape(arrays.get(name))} there, {_shape(wanted.get(name))} here"
    for name in dict.fromkeys((*wanted, *arrays))
    if _shape(arrays.get(name)) != _shape(wanted.get(name))
  ]
  if wrong:
    raise ValueError(
      f"{what} are of the wrong network; {len(wrong)} arrays differ:\n  "
      + "\n  ".join(wrong[:SHOWN])
      + "\nGive the file that belongs to it"
    )
  for name, array in arrays.items():
    if not np.issubdtype(array.dtype, np.floating):
      raise ValueError(f"{what}: {name} is {array.dtype}; weights are floats")
    if not np.isfinite(array).all():
      raise ValueError(
        f"{what}: {name} has values that are not finite; convert them again"
      )
  leaves = (arrays[name].astype(np.float32) for name in wanted)
  return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _shape(array: Any) -> str:
  return "absent" if array is None else str(tuple(array.shape))
