"""The folder of a run: its config.json, and whether to start, go on or refuse.

config.json holds `config` (resolved), `git`, `versions` and `hardware`, and
`earlier`: the configs that --resume=force went on from.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from magvit_jax import messages, registry, run_config
from magvit_jax.files import paths
from magvit_jax.types import PyTree

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
MODES = ("auto", "never", "force")


def read_config(workdir: paths.Name) -> dict[str, Any]:
  """All of workdir/config.json: 'config', 'git', 'versions', 'hardware'.

  Raises:
    FileNotFoundError: the folder holds no run.
    ValueError: the file is not JSON, or not the config of a run.
  """
  path = paths.as_path(workdir) / "config.json"
  if not path.is_file():
    raise FileNotFoundError(
      f"{path} does not exist, so {workdir} is not the workdir of a run; give "
      "the folder that was --workdir in training"
    )
  try:
    document = json.loads(paths.read_text(path))
    named = isinstance(document["config"]["stage"]["name"], str)
  except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
    raise ValueError(
      f"{path} is not JSON ({error}); restore it from a copy"
    ) from error
  except (KeyError, TypeError, IndexError):
    named = False
  if not named:
    raise ValueError(
      f"{path} is not of a run of this package: it has no config.stage.name; "
      "give the folder that was --workdir in training"
    )
  return document


@contextlib.contextmanager
def blaming(workdir: paths.Name) -> Iterator[None]:
  """Names config.json where what it says cannot be built."""
  try:
    yield
  except (KeyError, TypeError, AttributeError, IndexError) as error:
    raise ValueError(
      f"{paths.as_path(workdir) / 'config.json'} is not that of a run of this "
      f"version: {messages.text(error)}; restore it from a copy"
    ) from error


def write_config(
  workdir: paths.Name, cfg: Any, earlier: list[Any] | None = None
) -> None:
  """Writes config.json, whole or not at all."""
  document = {
    "config": normal(cfg),
    "git": _git(),
    "versions": versions(),
    "hardware": _hardware(),
    "earlier": earlier or [],
  }
  path = paths.as_path(workdir) / "config.json"
  paths.write_text(path, json.dumps(document, indent=2) + "\n")


def normal(cfg: Any) -> dict[str, Any]:
  """A config as JSON gives it back: plain dicts, lists for tuples."""
  return json.loads(json.dumps(registry.plain(cfg)))


def diff(a: Any, b: Any) -> list[str]:
  """'key.path: old -> new' for each leaf that differs between two configs."""
  old, new = _flat(normal(a)), _flat(normal(b))
  missing = "(absent)"
  return [
    f"{key}: {old.get(key, missing)} -> {new.get(key, missing)}"
    for key in sorted({*old, *new})
    if key not in old or key not in new or old[key] != new[key]
  ]


def _changes(old: Any, new: Any) -> list[str]:
  """`diff`, where a key that one of them lacks has its default."""
  return diff(run_config.complete(old), run_config.complete(new))


def plan(workdir: paths.Name, cfg: Any, resume: str) -> str:
  """What a run would do here: 'new', 'resume' or 'done'. Writes nothing.

  Args:
    workdir: folder of the run; it need not exist.
    cfg: the config to run.
    resume: 'auto' goes on with an equal config and refuses another; 'never'
      refuses a folder that holds a run; 'force' goes on with the new config.

  Raises:
    ValueError: unknown `resume`, or another config under 'auto'.
    FileExistsError: the folder holds a run under 'never'.
  """
  messages.check_choice("--resume", resume, MODES)
  folder = paths.as_path(workdir)
  if not (folder / "config.json").exists():
    if any((folder / "checkpoints").glob("[0-9]*")):
      raise FileExistsError(
        f"{folder} holds checkpoints but no config.json; restore that file, or "
        "choose another --workdir"
      )
    return "new"
  if resume == "never":
    raise FileExistsError(
      f"{folder} already holds a run, and nothing is ever overwritten: choose "
      "another --workdir, go on with --resume=auto, or delete the folder"
    )
  changes = _changes(read_config(folder)["config"], cfg)
  if changes and resume == "auto":
    raise ValueError(
      f"{folder} holds a run of another config:\n  "
      + "\n  ".join(changes)
      + "\nChoose another --workdir, repeat the old settings, or go on with "
      "the new ones by --resume=force"
    )
  done = (folder / "DONE").exists() and not changes
  return "done" if done else "resume"


def prepare(workdir: paths.Name, cfg: Any, resume: str) -> str:
  """Writes the config as `plan` says, and returns that.

  To be called by process 0, once the run is known to start: a config that
  fails must not stand in the way of its correction, nor for the network that
  was trained.
  A new config under 'force' takes the place of the old one, which is kept
  under 'earlier', and reopens a run that was done.

  Raises:
    OSError: the folder cannot be written; and what `plan` raises.
  """
  mode = plan(workdir, cfg, resume)
  folder = paths.as_path(workdir)
  check_writable(folder)
  if mode == "done":
    return mode
  if mode == "new":
    write_config(folder, cfg)
    return mode
  before = read_config(folder)
  if _changes(before["config"], cfg):
    earlier = [*before.get("earlier", []), before["config"]]
    write_config(folder, cfg, earlier)
    (folder / "DONE").unlink(missing_ok=True)
  return mode


def mark_done(workdir: paths.Name, step: int) -> None:
  """Writes DONE, which launchers wait for."""
  if jax.process_index() == 0:
    paths.write_text(paths.as_path(workdir) / "DONE", f"step {step}\n")


def check_writable(workdir: paths.Name) -> None:
  """Makes the folder; OSError where nothing can be written into it."""
  folder = paths.as_path(workdir)
  probe = folder / f".write_test_{os.getpid()}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b"x" * 4096)
    probe.unlink(missing_ok=True)
  # An object store refuses by what its client happens to raise.
  except Exception as error:
    raise OSError(
      f"workdir {folder} cannot be written ({error}); choose another "
      "--workdir, or free space and permissions there"
    ) from error


def check_space(workdir: paths.Name, state: PyTree) -> None:
  """OSError where not even one checkpoint of `state` fits on the disk."""
  leaves = jax.tree.leaves(state)
  need = sum(x.size * x.dtype.itemsize for x in leaves) / 2**20
  free = paths.free_mib(paths.as_path(workdir))
  if free < need:
    raise OSError(
      f"the disk of workdir {workdir} has {free:.0f} MiB free, and one "
      f"checkpoint takes {need:.0f} MiB; free some space or choose another "
      "--workdir"
    )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(tree, Mapping) or (prefix and not tree):
    return {prefix: tree}
  leaves = {}
  for key, value in tree.items():
    leaves |= _flat(value, f"{prefix}.{key}" if prefix else key)
  return leaves


def _git() -> str:
  """Commit of the checkout this package runs from, '' outside of one."""
  root = pathlib.Path(__file__).resolve().parent.parent
  if not (root / ".git").exists():
    return ""
  describe = ["git", "-C", str(root), "describe", "--always", "--dirty"]
  try:
    out = subprocess.run(
      [*describe, "--abbrev=40", "--exclude=*"], capture_output=True, text=True
    )
  except OSError:
    return ""
  return out.stdout.strip()


def versions() -> dict[str, str]:
  """Of Python and of the packages that decide what a run computes."""
  found = {"python": platform.python_version()}
  for name in PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "not installed"
  return found


def _hardware() -> dict[str, Any]:
  return {
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "processes": jax.process_count(),
    "cpus": os.cpu_count(),
    "platform": f"{platform.machine()} {sys.platform}",
  }
