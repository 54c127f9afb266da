"""Conversion of public weights: the name in --from is a file of this folder.

Each file defines

  FILES           the public files by name, as `PublicFile`s
  NOTES           what the written file says of itself, such as its net
  USE             how the written file is used, with {out} for its name
  convert(state)  arrays by their public names -> arrays by ours
  shapes()        tree of the shapes that `convert` must give

so that a source is one table of names and what happens to the axes. Nothing is
ever downloaded here.
"""

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

SHOWN = 3  # names that an error lists
Rule = tuple[str, Callable[[np.ndarray], np.ndarray]]


class PublicFile(NamedTuple):
  """A file that its makers publish.

  Attributes:
    url: where it is.
    sha256: hexadecimal, or as much of its beginning as is known.
    holds: what it is.
  """

  url: str
  sha256: str
  holds: str


def same(array: np.ndarray) -> np.ndarray:
  """The array as it is."""
  return array


def conv2d(kernel: np.ndarray) -> np.ndarray:
  """torch's [o c h w] -> [h w c o]."""
  return kernel.transpose(2, 3, 1, 0)


def dense(kernel: np.ndarray) -> np.ndarray:
  """torch's [o c] -> [c o]."""
  return kernel.T


def rename(
  state: Mapping[str, np.ndarray],
  rules: Mapping[str, Rule],
  ignored: Iterable[str] = (),
) -> dict[str, np.ndarray]:
  """Arrays by our names, through a table of the public ones.

  Args:
    state: arrays by their public names.
    rules: public name to (our name, what happens to the axes).
    ignored: beginnings of public names that are not needed.

  Raises:
    ValueError: a name of the table is missing, or one is in no table.
  """
  missing = [name for name in rules if name not in state]
  known = (*rules, *ignored)
  extra = [name for name in state if not name.startswith(known)]
  check_names(missing, extra)
  return {
    ours: change(np.asarray(state[name], np.float32))
    for name, (ours, change) in rules.items()
  }


def check_names(missing: list[str], extra: list[str]) -> None:
  """ValueError if either list has names; the first three are shown."""
  for what, found in (("missing", missing), ("unknown", extra)):
    if found:
      raise ValueError(
        f"{len(found)} {what} arrays: {', '.join(found[:SHOWN])}"
        f"{' …' if len(found) > SHOWN else ''}; is --from the source of these "
        "files, and are all of them given?"
      )


def checksum_text(
  path: str | os.PathLike[str], files: Mapping[str, PublicFile]
) -> str:
  """One line on whether a file is the public one of its name."""
  path = pathlib.Path(path)
  with path.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  public = files.get(path.name)
  if public is None:
    return f"{path}: sha256 {found}; no public file has this name"
  if found.startswith(public.sha256):
    return f"{path}: sha256 {found}, as published"
  return (
    f"{path}: sha256 {found}, but the published file has {public.sha256}…; "
    f"it is at {public.url}"
  )
