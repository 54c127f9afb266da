"""Which process runs in a workdir: a note it leaves, and whether it lives."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax

from magvit_jax.distributed import processes
from magvit_jax.files import paths

RUNNING = ".running"

_PROC = pathlib.Path("/proc")


@contextlib.contextmanager
def only_run(workdir: paths.Name) -> Iterator[None]:
  """Refuses, on every process, a workdir in which another live run trains.

  Process 0 leaves its `mark` in the file '.running' while the block lasts. The
  note of a process that is gone, or of another machine or container, where it
  cannot be looked up, is replaced.

  Raises:
    ValueError: the process of the note runs.
  """
  note = paths.as_path(workdir) / RUNNING
  first = jax.process_index() == 0
  owner = _claim(note) if first else ""
  owner = processes.of_first(owner)
  if owner:
    raise ValueError(
      f"{workdir} is the workdir of a run that trains now, in process {owner}; "
      "wait for its end, stop it, or choose another --workdir"
    )
  try:
    yield
  finally:
    if first and _note(note) == mark():
      note.unlink(missing_ok=True)


def _claim(note: paths.Path) -> str:
  """Writes the note of this process; the pid of another one that runs."""
  own = mark()
  while own:
    other = _note(note)
    if other != own and runs(other):
      return other.split("/")[-2]
    note.unlink(missing_ok=True)
    if paths.is_remote(note):  # an object store has no exclusive creation
      paths.write_text(note, own)
      return ""
    with contextlib.suppress(FileExistsError), note.open("x") as file:
      file.write(own)
      return ""
  return ""


def _note(note: paths.Path) -> str:
  try:
    return paths.read_text(note)
  except (OSError, UnicodeDecodeError):
    return ""


def mark() -> str:
  """A note of this process: 'boot/namespace/pid/start', or '' without /proc.

  A pid alone is used again after a restart, and means another process inside
  of a container.
  """
  pid = os.getpid()
  start = _start(pid)
  return f"{_here()}/{pid}/{start}" if start else ""


def runs(note: str) -> bool | None:
  """Whether the process of a `mark` runs; None if that is not known here."""
  *here, pid, start = note.split("/") if note.count("/") >= 3 else [""] * 3
  if not start or "/".join(here) != _here():
    return None
  return _start(int(pid)) == start


def _here() -> str:
  """The boot and the pid namespace: other machines and containers differ."""
  try:
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink(_PROC / 'self/ns/pid')}"
  except OSError:
    return ""


def _start(pid: int) -> str:
  """When a process began, in ticks since the boot; '' if there is none."""
  try:
    stat = (_PROC / str(pid) / "stat").read_text()
  except OSError:
    return ""
  # The name, in parentheses, may hold spaces; a zombie does not run.
  state, *rest = stat.rpartition(")")[2].split()
  return "" if state == "Z" else rest[18]
