"""Files of a folder, their classes, and who is held out."""

import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from magvit_jax.data import video_io
from magvit_jax.files import paths

EXTENSIONS = video_io.VIDEO_EXTENSIONS + video_io.IMAGE_EXTENSIONS


class Files(NamedTuple):
  """The files of a source.

  Attributes:
    root: the folder that they lie in.
    classes: names of the classes.
    labels: index of the class of each file, by path, in the order of the files.
  """

  root: paths.Path
  classes: tuple[str, ...]
  labels: dict[paths.Path, int]


def list_files(root: paths.Name) -> list[paths.Path]:
  """Videos and images under a folder, sorted; hidden ones are passed over.

  Raises:
    OSError: there is no such folder, or it holds none.
  """
  folder = paths.as_path(root) if str(root) else None
  if folder is None or not folder.is_dir():
    raise NotADirectoryError(
      f"data.root: {str(root)!r} is not a folder; give one that holds videos "
      f"({' '.join(EXTENSIONS)})"
    )
  found = sorted(
    path for path in _walk(folder) if path.suffix.lower() in EXTENSIONS
  )
  if not found:
    raise FileNotFoundError(
      f"data.root: {str(root)!r} holds no video; looked in it and its "
      f"subfolders for {' '.join(EXTENSIONS)}"
    )
  return found


def _walk(folder: paths.Path) -> Iterator[paths.Path]:
  """Files below a folder; links to folders are followed, each folder once."""
  if paths.is_remote(folder):
    for path in paths.files_below(folder):
      parts = path.relative_to(folder).parts
      if not any(part[0] == "." for part in parts):
        yield path
    return
  seen = set()
  for top, folders, names in os.walk(folder, followlinks=True):
    real = os.path.realpath(top)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if name[0] != ".")
    found = (pathlib.Path(top, name) for name in names if name[0] != ".")
    yield from (path for path in found if path.is_file())


def held_out(names: list[str], share: float) -> frozenset[str]:
  """Names whose hash falls below `share`; never none and never all of many."""
  ranked = sorted(set(names), key=unit_hash)
  count = sum(unit_hash(name) < share for name in ranked)
  if len(ranked) > 1:
    count = min(max(count, 1), len(ranked) - 1)
  return frozenset(ranked[:count])


def unit_hash(name: str) -> float:
  """A number in [0, 1) that depends on nothing but the name."""
  digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
  return int.from_bytes(digest[:6], "big") / 2**48


def by_folder(root: paths.Name) -> Files:
  """The files under a folder; its first level of subfolders are the classes.

  Files beside the class folders are of class 0, whose name is '' where there
  are no subfolders. Errors are those of `list_files`.
  """
  found = list_files(root)
  folder = paths.as_path(root)
  names = {path: path.relative_to(folder).parts[:-1][:1] for path in found}
  classes = tuple(sorted({first[0] for first in names.values() if first}))
  labels = {p: classes.index(n[0]) if n else 0 for p, n in names.items()}
  return Files(folder, classes or ("",), labels)
