"""Files and folders that users name: of this machine, or gs://bucket/folder.

`as_path` turns a name into a pathlib.Path or, for gs://, an `etils.epath.Path`,
which has the same methods and works through fsspec and gcsfs (the extra `gcs`).
What an object store does otherwise stands here and in spool.py: it has no
folders, no disk that fills up and no appending, a file appears when all of it
is written, and the programs of others cannot open it.
"""

import atexit
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import fsspec
from etils import epath

from magvit_jax import messages

Path = pathlib.Path | epath.Path
Name = str | os.PathLike[str]

REMOTE = "gs"
# One slash is what pathlib leaves of two.
# Of glob patterns, and what os.fsdecode makes of bytes that are not UTF-8.
_UNFIT = re.compile("[*?\\[\udc80-\udcff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def as_path(name: Name) -> Path:
  """The path of a name; a leading ~ is the home folder.

  Raises:
    ValueError: an empty name, another scheme than gs://, or one that lost a
      slash.
    OSError: gs:// without what the extra `gcs` installs.
  """
  if not is_remote(name):
    text = os.fspath(name)
    if not text.strip():
      raise ValueError(
        f"a path is {text!r}, which names nothing (an unset variable?); give "
        "a file or folder, '.' for the current one"
      )
    return pathlib.Path(os.path.expanduser(text))
  _require(str(name))
  return epath.Path(name)


def is_remote(name: Name) -> bool:
  """Whether a name is of an object store; ValueError where it is malformed."""
  text = os.fspath(name)
  found = _SCHEME.match(text)
  if not found:
    return False
  if not text.startswith(f"{REMOTE}://"):
    raise ValueError(
      f"{text}: a path is a local one or begins with {REMOTE}://, with two "
      "slashes; write it so"
    )
  return True


def absolute(name: Name) -> Path:
  """`as_path` of a name, from the root on."""
  path = as_path(name)
  return path if is_remote(path) else path.absolute()


def orbax_path(path: Path) -> Path:
  """A path to the same folder that Orbax and TensorStore can open.

  Orbax looks for the files of a checkpoint by a glob pattern that begins with
  the folder's path, and finds nothing below 'run [v2]'; TensorStore takes names
  in UTF-8 alone. Other folders are reached by a symbolic link in the temporary
  folder, which this process deletes at its end.
  """
  if is_remote(path) or not _UNFIT.search(str(path)):
    return path
  name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
  folder = pathlib.Path(tempfile.gettempdir()) / f"magvit_jax_{os.getpid()}"
  link = folder / name
  if not link.is_symlink():
    folder.mkdir(mode=0o700, exist_ok=True)
    link.symlink_to(path, target_is_directory=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return link


def basename(path: Path) -> str:
  """The last part of a path, also of '.'."""
  return path.name if is_remote(path) else path.resolve().name


def is_folder(path: Path) -> bool:
  """Whether files can be put into `path`: anywhere in an object store."""
  return is_remote(path) or path.is_dir()


def is_open(path: Path) -> bool:
  """Whether this user may write into a folder, as far as can be told."""
  return is_remote(path) or os.access(path, os.W_OK)


def free_mib(path: Path) -> float:
  """MiB that are free where a folder lies; infinite in an object store."""
  if is_remote(path):
    return float("inf")
  return shutil.disk_usage(path).free / 2**20


def stamp(path: Path) -> tuple[int, int]:
  """(time of change in ns, bytes); OSError if there is no such file.

  Objects are taken not to change under a run, which saves a request for each
  clip: theirs is (0, 0).
  """
  if is_remote(path):
    return 0, 0
  if path.is_dir():
    raise IsADirectoryError(f"{path} is a folder; give a file in it")
  if not path.is_file():
    raise FileNotFoundError(f"{path}: no such file")
  stat = path.stat()
  return stat.st_mtime_ns, stat.st_size


def files_below(folder: Path) -> list[Path]:
  """Every file of a remote folder and its subfolders, by one listing."""
  system, root = fsspec.core.url_to_fs(str(folder))
  return [as_path(f"{REMOTE}://{name}") for name in sorted(system.find(root))]


def remove_tree(folder: Path) -> None:
  """Deletes a folder and what is in it, if it is there."""
  if is_remote(folder):
    folder.rmtree(missing_ok=True)
  else:
    shutil.rmtree(folder, ignore_errors=True)


def move_tree(source: Path, target: Path) -> None:
  """Moves a folder to a place that is not there yet."""
  if is_remote(source):
    # Copied first: what a kill leaves can be moved again.
    system, _ = fsspec.core.url_to_fs(str(source))
    for file in files_below(source):
      system.cp_file(str(file), str(target / file.relative_to(source)))
    remove_tree(source)
    return
  target.parent.mkdir(parents=True, exist_ok=True)
  source.rename(target)


def write_text(path: Path, text: str) -> None:
  """Writes a file of text, whole or not at all."""
  with writing(path) as part:
    # File names that are not UTF-8 come as lone surrogates.
    part.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_text(path: Path) -> str:
  """The text of a file."""
  return path.read_bytes().decode("utf-8")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[pathlib.Path]:
  """A local file to write, of the same extension.

  It becomes `path` when the block ends without an error; else it is deleted,
  and `path` is as it was.
  """
  if is_remote(path):
    with tempfile.TemporaryDirectory(prefix="magvit_jax_") as folder:
      part = pathlib.Path(folder) / path.name
      yield part
      upload(part, path)
    return
  part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[pathlib.Path]:
  """A local file with what `path` holds, for as long as the block lasts."""
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="magvit_jax_") as folder:
    local = pathlib.Path(folder) / path.name
    with path.open("rb") as source, local.open("wb") as target:
      shutil.copyfileobj(source, target, 2**24)
    yield local


def upload(local: pathlib.Path, path: Path) -> None:
  """Copies a local file to a remote place, where it appears whole."""
  with local.open("rb") as source, path.open("wb") as target:
    shutil.copyfileobj(source, target, 2**24)


def _require(name: str) -> None:
  """Chooses fsspec as the way to objects; refuses if it knows none."""
  # epath takes TensorFlow where that is installed, which is slow to import and
  # was not tried here. Checkpoints are written past fsspec, whose cached
  # listings would not have them.
  os.environ.setdefault("EPATH_USE_TF", "0")
  for protocol in ("gcs", "gs"):
    own = fsspec.config.conf.setdefault(protocol, {})
    own.setdefault("use_listings_cache", False)
  try:
    fsspec.get_filesystem_class("gcs")
  except ImportError as error:
    raise OSError(
      f"{name}: {REMOTE}:// paths need gcsfs, which is missing ({error}); "
      f"{messages.install_extra('gcs')}"
    ) from error
