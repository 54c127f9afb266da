"""Whether a process that left a note of itself still runs."""

import os
import pathlib

_PROC = pathlib.Path("/proc")


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
