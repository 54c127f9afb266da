"""Checkpoints: Orbax v1 folders, saved in the background, read back checked.

workdir/checkpoints/<step>/ holds one Orbax item per part of the state:
`params`, `opt`, `ema`, `extra`, and `loop` (the step and a checksum of each
other item, taken on the devices, that is of what was meant: checksum.py).
manifest.json has the checksums of the files, that is of what was written.
`frozen` arrays never change and are saved once: see frozen_files.py.

A checkpoint appears by one rename when all of it is written, its manifest
included; on gs:// by a last file. What a kill leaves of another is removed at
the next start.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from magvit_jax import tree_utils
from magvit_jax.checkpoints import checksum, manifest
from magvit_jax.files import paths, remote_buffer
from magvit_jax.messages import suggest
from magvit_jax.stages import TrainState
from magvit_jax.types import PyTree

ITEMS = ("params", "opt", "ema", "extra")
Say = Callable[[str], None]


class MismatchError(ValueError):
  """A whole checkpoint of another network than the one asked for."""


def steps(workdir: paths.Name) -> list[int]:
  """Steps that have a folder in workdir/checkpoints, oldest first."""
  folder = paths.as_path(workdir) / "checkpoints"
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


class Checkpointer:
  """Saves and restores the TrainStates of one run.

  Args:
    workdir: folder of the run.
    every: steps between saves; 0 saves only when forced.
    keep: number of latest checkpoints that are kept.
    best: metric by which one more checkpoint is kept, or 'none'.
    best_mode: 'max' or 'min'.
    say: where messages go.

  Raises:
    ValueError: `keep` below 1 or an unknown `best_mode`.
  """

  def __init__(
    self,
    workdir: paths.Name,
    *,
    every: int,
    keep: int = 3,
    best: str = "none",
    best_mode: str = "max",
    say: Say = print,
  ):
    if keep < 1:
      raise ValueError(f"checkpoint.keep is {keep}; it must be at least 1")
    if best_mode not in ("max", "min"):
      raise ValueError(
        f"checkpoint.best_mode is {best_mode!r}; it is 'max' or 'min'"
      )
    self.workdir = paths.absolute(workdir)
    self.every = every
    self.best = best
    self.sign = 1.0 if best_mode == "max" else -1.0
    self.say = say
    self._writing: int | None = None
    policies = ocp.training.preservation_policies
    kept: list[Any] = [policies.LatestN(keep)]
    if best != "none":
      kept.append(
        policies.BestN(
          get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
        )
      )
    context = ocp.Context()
    # Orbax copies options, and with a bound method what it is bound to.
    context.asynchronous.post_finalization_callback = lambda: self._finish()
    self._manager = ocp.training.Checkpointer(
      paths.orbax_path(self.workdir) / "checkpoints",
      preservation_policy=policies.AnyPreservationPolicy(kept),
      cleanup_tmp_directories=True,
      context=context,
    )

  def save(
    self,
    step: int,
    state: TrainState,
    metrics: dict[str, float] | None = None,
    force: bool = False,
  ) -> bool:
    """Starts a save if it is due, forced, or the best by metric so far.

    Returns once the arrays are copied; the writing goes on behind.

    Raises:
      OSError: this save, or the one before it, could not be written.
      KeyError: `metrics` lacks the metric of `checkpoint.best`; the step is
        saved before that is raised.
    """
    lacks = metrics is not None and self.best not in ("none", *metrics)
    due = self.every > 0 and step % self.every == 0
    if not (due or force or lacks or self._improves(metrics)):
      return False
    if any(info.step == step for info in self._manager.checkpoints):
      return False
    # Orbax first waits for the save before, whose failure would come up here.
    self.wait()
    self._writing = step
    with _writing(self.workdir, step):
      items = {k: v for k, v in _items(state).items() if jax.tree.leaves(v)}
      items["loop"] = {
        "step": np.asarray(step, np.int32),
        "checksum": {
          name: np.asarray(checksum.bits(item), np.uint32)
          for name, item in items.items()
        },
      }
      self._manager.save_checkpointables_async(
        step, items, force=True, metrics=metrics
      )
    if lacks:
      self.wait()
      raise KeyError(
        f"checkpoint.best is {self.best!r}, which evaluation does not give"
        f"{suggest(self.best, metrics)}; it gives {', '.join(metrics)}. Choose "
        f"one of them or 'none'; step {step} is saved"
      )
    return True

  def restore(self, abstract: TrainState) -> tuple[int, TrainState] | None:
    """The newest whole checkpoint, as `abstract` (with shardings) says.

    Damaged folders are passed over with a message and moved to
    workdir/damaged, so that their step can be saved again. `frozen` is taken
    from `abstract` as it is: see frozen_files.py.

    Returns:
      (step, state), or None where nothing was ever saved.

    Raises:
      MismatchError: the checkpoint is of another network.
      OSError: there are checkpoints, but none is whole.
    """
    found = steps(self.workdir)
    if not found:
      return None
    step, items, broken = _newest(self.workdir, _items(abstract), self.say)
    if broken:
      aside = self.workdir / "damaged"
      if jax.process_index() == 0:
        for bad in broken:
          paths.move_tree(_folder(self.workdir, bad), _free_name(aside, bad))
      multihost_utils.sync_global_devices("damaged checkpoints moved")
      self.say(f"restored step {step}; damaged ones are in {aside}")
      self._manager.reload()
    state = abstract._replace(step=items.pop("step"), **items)
    return step, state

  def latest(self) -> int | None:
    """The latest step that was saved, or None."""
    latest = self._manager.latest
    return None if latest is None else latest.step

  def wait(self) -> None:
    """Returns when the last save is on disk. OSError if it is not."""
    with _writing(self.workdir, self._writing):
      self._manager.wait()

  def close(self) -> None:
    """Waits for the last save and ends the background threads."""
    with _writing(self.workdir, self._writing):
      self._manager.close()

  def _finish(self) -> None:
    """Called by Orbax on process 0, when only the rename is still to do."""
    step = str(self._writing)
    for folder in (self.workdir / "checkpoints").iterdir():
      if folder.name.split(".")[0] == step:
        manifest.write(folder)

  def _score(self, metrics: dict[str, float]) -> float:
    score = self.sign * float((metrics or {}).get(self.best, np.nan))
    return score if np.isfinite(score) else -np.inf

  def _improves(self, metrics: dict[str, float] | None) -> bool:
    if self.best == "none" or metrics is None:
      return False
    seen = [info.metrics for info in self._manager.checkpoints if info.metrics]
    return self._score(metrics) > max(map(self._score, seen), default=-np.inf)


def load_params(
  workdir: paths.Name,
  abstract: PyTree,
  item: str = "ema",
  step: int | None = None,
  say: Say = print,
) -> PyTree:
  """One item of a checkpoint, without reading the others.

  With several processes all of them call it.

  Args:
    workdir: folder of the run.
    abstract: tree of ShapeDtypeStructs; it may be a part of what was saved.
      Leaves without a sharding go to the process's first device.
    item: 'ema', 'params', 'opt' or 'extra'.
    step: which checkpoint; None is the newest whole one.
    say: where messages about damaged checkpoints go.

  Raises:
    OSError: no such checkpoint, or none that is whole.
    MismatchError: the shapes are not those that were saved.
  """
  found = steps(workdir)
  if not found or (step is not None and step not in found):
    what = "checkpoint" if step is None else f"checkpoint of step {step}"
    raise OSError(
      f"{paths.as_path(workdir) / 'checkpoints'} holds no {what}; it holds "
      f"{found or 'none'}. Train first, or give the workdir of a run"
    )
  wanted = {item: placed(abstract)}
  return _newest(paths.absolute(workdir), wanted, say, step)[1][item]


def stored(workdir: paths.Name, step: int, item: str) -> dict[str, Any]:
  """Names of the saved leaves of an item, with their shape and dtype."""
  folder = _folder(paths.absolute(workdir), step)
  meta = ocp.checkpointables_metadata(paths.orbax_path(folder)).metadata
  return tree_utils.named(meta[item]) if item in meta else {}


@contextlib.contextmanager
def _writing(workdir: paths.Path, step: int | None) -> Iterator[None]:
  """What Orbax and TensorStore raise on a full disk, as a clear error."""
  try:
    yield
  except (OSError, ValueError) as error:
    kind, free = OSError, f" ({paths.free_mib(workdir):.0f} MiB free)"
    if paths.is_remote(workdir):  # which is no error of the user's
      kind, free = remote_buffer.UploadError, ""
    raise kind(
      f"the checkpoint of step {step} could not be written to "
      f"{workdir / 'checkpoints'}{free}: {error}. "
      "Earlier checkpoints are untouched: free some space and run the same "
      "command again"
    ) from error


def _folder(workdir: paths.Path, step: int) -> paths.Path:
  return workdir / "checkpoints" / str(step)


def _free_name(folder: paths.Path, step: int) -> paths.Path:
  """folder/step, or folder/step_2 … where a step was damaged before."""
  names = itertools.chain(
    [str(step)], (f"{step}_{i}" for i in itertools.count(2))
  )
  return next(folder / name for name in names if not (folder / name).exists())


def _items(state: TrainState) -> dict[str, PyTree]:
  return {name: getattr(state, name) for name in ITEMS}


def _newest(
  workdir: paths.Path,
  wanted: dict[str, PyTree],
  say: Say,
  step: int | None = None,
) -> tuple[int, dict[str, PyTree], list[int]]:
  """(step, items, damaged steps) of the newest whole checkpoint."""
  broken: list[int] = []
  for candidate in steps(workdir)[::-1] if step is None else [step]:
    fault, items = "", {}
    try:
      items = _load(workdir, candidate, wanted)
    except MismatchError:
      raise
    # Damage comes as ValueError, KeyError, InvalidLayoutError or a bare
    # Exception, by the byte that is wrong; each means the same here.
    except Exception as error:
      fault = f"{type(error).__name__}: {_short(error)}"
    # A process may have read the wrong bytes alone.
    fault = manifest.shared(fault)
    if not fault:
      return candidate, items, broken
    broken.append(candidate)
    say(
      f"checkpoint {_folder(workdir, candidate)} is damaged ({fault}); trying "
      "the one before"
    )
  raise OSError(
    f"none of the checkpoints in {workdir / 'checkpoints'} is whole (tried "
    f"{broken}). Restore them from a copy, or train in a new workdir"
  )


def _load(
  workdir: paths.Path, step: int, wanted: dict[str, PyTree]
) -> dict[str, PyTree]:
  empty = {k: v for k, v in wanted.items() if not jax.tree.leaves(v)}
  full = {k: v for k, v in wanted.items() if k not in empty}
  manifest.check(_folder(workdir, step), {*full, "loop"})
  partial = False
  for name in ("params", "ema"):
    if name in full:
      partial |= _check_shapes(workdir, step, name, full[name])
  where = _replicated(jax.tree.leaves(full)[0].sharding)
  loop = {
    "step": jax.ShapeDtypeStruct((), jnp.int32, sharding=where),
    "checksum": {
      name: jax.ShapeDtypeStruct((), jnp.uint32, sharding=where)
      for name in full
    },
  }
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with context:
    items = ocp.load_checkpointables(
      paths.orbax_path(_folder(workdir, step)), {**full, "loop": loop}
    )
  loop = items.pop("loop")
  for name, item in items.items():
    if not partial and int(loop["checksum"][name]) != checksum.bits(item):
      raise manifest.DamagedError(
        f"{name} does not have the checksum it was saved with"
      )
  return {**items, **empty, "step": loop["step"]}


def _check_shapes(
  workdir: paths.Path, step: int, item: str, abstract: PyTree
) -> bool:
  """MismatchError unless the saved shapes fit; True if more was saved."""
  saved = stored(workdir, step, item)
  wanted = tree_utils.named(abstract)
  if not saved:
    raise KeyError(f"it has no item {item!r}")
  wrong = [
    f"{name}: saved {tuple(saved[name].shape) if name in saved else 'nothing'}"
    f", wanted {tuple(leaf.shape)}"
    for name, leaf in wanted.items()
    if name not in saved or tuple(saved[name].shape) != tuple(leaf.shape)
  ]
  if wrong:
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    raise MismatchError(
      f"checkpoint {step} in {workdir} is of another network: "
      f"{'; '.join(wrong[:5])}{more}. Use the config it was trained with, or "
      "--config.init_from to take over what fits"
    )
  return len(saved) > len(wanted)


def placed(abstract: PyTree) -> PyTree:
  """Leaves without a sharding go to the first device of their process."""
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def place(x):
    sharding = getattr(x, "sharding", None) or here
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(place, abstract)


def _replicated(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
  if isinstance(sharding, jax.sharding.NamedSharding):
    spec = jax.sharding.PartitionSpec()
    return jax.sharding.NamedSharding(sharding.mesh, spec)
  return sharding


def _short(error: Exception) -> str:
  text = " ".join(str(error).split())
  return text if len(text) <= 240 else text[:237] + "..."
