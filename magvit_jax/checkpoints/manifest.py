"""Sizes and checksums of the files of a checkpoint, and what lies in them.

Orbax compresses arrays without a checksum, so that a flipped bit on a disk
would come back as wrong weights, or as an error that names nothing. A folder
of Orbax items gets a manifest.json, before it becomes a checkpoint: for each
file below it a size, and a CRC-32 of each `PIECE` bytes, so that a fault has a
place. Orbax's index (OCDBT, a B-tree of keys to byte ranges) says which arrays
lie there.
"""

import concurrent.futures
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import tensorstore as ts

from magvit_jax import messages
from magvit_jax.distributed import processes
from magvit_jax.files import paths

NAME = "manifest.json"
PIECE = 2**20  # bytes
THREADS = 8  # zlib leaves the interpreter to others while it sums
LISTED = 4  # names in a message


class DamagedError(ValueError):
  """Files or arrays that are not as they were saved."""


def write(folder: paths.Path) -> None:
  """Writes the manifest of all files in the folders below `folder`.

  Files beside those folders, which Orbax changes to the end, are left out.
  """
  names = [name for name in _below(folder) if "/" in name]
  with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
    facts = pool.map(lambda name: _facts(folder / name), names)
    files = dict(zip(names, facts, strict=True))
  # The manifest can be hit itself.
  document = {"crc32": _sum(json.dumps(files).encode()), "files": files}
  paths.write_text(folder / NAME, json.dumps(document) + "\n")


def check(folder: paths.Path, items: Iterable[str] | None = None) -> None:
  """Compares files with the manifest: sizes first, then what is in them.

  With several processes each of them reads a share of the files, and all of
  them come to the same end.

  Args:
    folder: what `write` was given, wherever it is by now.
    items: names of the subfolders to check; None is all of them.

  Raises:
    DamagedError: names the first wrong file, what is wrong with it, and the
      arrays in it if that is known. Without a manifest nothing is checked.
  """
  try:
    fault = _fault(folder, items)
  except OSError as error:  # a disk that cannot read them back
    fault = str(error)
  fault = shared(fault)
  if fault:
    raise DamagedError(fault)


def shared(fault: str) -> str:
  """The first fault that a process has found, on all; '' if there is none."""
  return next(filter(None, processes.gather(fault)), "")


def _below(folder: paths.Path) -> list[str]:
  """Names of all files below a folder, with / between the parts."""
  if paths.is_remote(folder):
    found = paths.files_below(folder)
  else:
    found = [path for path in folder.rglob("*") if path.is_file()]
  return sorted(path.relative_to(folder).as_posix() for path in found)


def _facts(path: paths.Path) -> dict[str, Any]:
  sums, size = [], 0
  for piece in _pieces(path):
    sums.append(_sum(piece))
    size += len(piece)
  return {"size": size, "crc32": sums}


def _pieces(path: paths.Path) -> Iterator[bytes]:
  with path.open("rb") as file:
    while piece := file.read(PIECE):
      yield piece


def _sum(data: bytes) -> str:
  return f"{zlib.crc32(data):08x}"


def _read(folder: paths.Path) -> dict[str, dict[str, Any]] | None:
  """`files` of the manifest, {} if there is none, None if it is damaged."""
  path = folder / NAME
  if not path.exists():
    return {}
  try:
    document = json.loads(paths.read_text(path))
    files = document["files"]
    whole = _sum(json.dumps(files).encode()) == document["crc32"]
    return files if whole else None
  except (ValueError, KeyError, TypeError):
    return None


def _fault(folder: paths.Path, items: Iterable[str] | None) -> str:
  """What is wrong with the files that this process looks at, or ''."""
  files = _read(folder)
  if files is None:
    return f"{NAME} itself is not as it was saved"
  if items is not None:
    files = {k: v for k, v in files.items() if k.split("/")[0] in items}
  for name, facts in files.items():
    if fault := _wrong_size(folder, name, facts["size"]):
      return fault
  own = sorted(files)[processes.index() :: processes.count()]
  with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
    jobs = pool.map(lambda k: _wrong_piece(folder, k, files[k]["crc32"]), own)
    return next(filter(None, jobs), "")


def _wrong_size(folder: paths.Path, name: str, saved: int) -> str:
  size = _size(folder / name)
  if size == saved:
    return ""
  has = "is missing" if size is None else f"has {size:,} bytes"
  return f"{name} {has}, saved were {saved:,}{_held(folder, name)}"


def _size(path: paths.Path) -> int | None:
  if paths.is_remote(path):
    return path.stat().length if path.exists() else None
  return os.path.getsize(path) if path.is_file() else None


def _wrong_piece(folder: paths.Path, name: str, saved: list[str]) -> str:
  for number, piece in enumerate(_pieces(folder / name)):
    if _sum(piece) != saved[number]:
      start = number * PIECE
      stop = start + len(piece)
      held = _held(folder, name, start, stop)
      return (
        f"{name} differs from what was saved in bytes {start:,} to {stop:,}"
        f"{held}"
      )
  return ""


def _held(
  folder: paths.Path, name: str, start: float = 0, stop: float = math.inf
) -> str:
  """' (of a, b)': the arrays in some bytes of a file, '' if not known."""
  item, _, file = name.partition("/")
  # The index may be what is damaged, and then it raises as it likes.
  try:
    found = [
      array
      for array, where, first, last in _index(folder / item)
      if where == file and first < stop and start < last
    ]
  except Exception:
    found = []
  arrays = list(dict.fromkeys(found))
  return f" (of {messages.some(arrays, LISTED)})" if arrays else ""


def _index(item: paths.Path) -> Iterator[tuple[str, str, int, int]]:
  """(array, file, first byte, last byte) of each value in an Orbax item."""
  local = {"driver": "file", "path": f"{item}/"}
  base = f"{item}/" if paths.is_remote(item) else local
  store = ts.KvStore.open(base).result()
  versions = ts.ocdbt.dump(store).result()["versions"]
  nodes = [(versions[-1]["root"]["location"], b"")]
  while nodes:
    node, prefix = nodes.pop()
    for entry in ts.ocdbt.dump(store, node).result()["entries"]:
      key = prefix + entry["key"]
      if "location" in entry:
        common = prefix + entry["subtree_common_prefix"]
        nodes.append((entry["location"], common))
      elif "indirect_value" in entry:
        # 'value:ocdbt.process_0/:d/0861b8:0:15460', the folder quoted.
        _, base_path, file, first, size = entry["indirect_value"].split(":")
        array = key.decode().split("/")[0].replace(".", "/")
        start = int(first)
        yield array, base_path + file, start, start + int(size)
