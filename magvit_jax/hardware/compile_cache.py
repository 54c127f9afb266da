"""Where compiled programs are kept, so that a restart does not compile again.

JAX_COMPILATION_CACHE_DIR says where; without it the user's cache folder is
taken: $XDG_CACHE_HOME (or ~/.cache)/magvit_jax/xla, one folder for each kind
of processor, as programs for CPUs run on no lesser one. Entries are found by a
hash of program, compiler and devices; deleting the folder is always safe.
JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

import hashlib
import os
import pathlib
import platform
import re

import jax

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def enable() -> None:
  """Sets JAX's folder of compiled programs, unless the user has set one.

  Without a folder that can be made (a read-only home, or none) every run
  compiles its programs again.
  """
  if jax.config.jax_compilation_cache_dir:
    return
  try:
    path = folder()
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # RuntimeError: a user without a home
    return
  jax.config.update("jax_compilation_cache_dir", str(path))


def folder() -> pathlib.Path:
  """The folder of this user and this kind of processor."""
  base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(base) / "magvit_jax" / "xla" / _processor()


def _processor() -> str:
  """'x86_64-1f2e3d4c': the architecture and a hash of what it can do."""
  text = _CPUINFO.read_text() if _CPUINFO.exists() else platform.processor()
  able = re.search(r"^(flags|Features)\s*:.*$", text, re.MULTILINE)
  line = able.group() if able else text
  return f"{platform.machine()}-{hashlib.sha256(line.encode()).hexdigest()[:8]}"
