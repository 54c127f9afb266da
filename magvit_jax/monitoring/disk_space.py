"""Whether the disk of a workdir holds what the run will still write there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from magvit_jax.checkpoints import checkpointer
from magvit_jax.files import paths
from magvit_jax.monitoring.incidents import Incidents
from magvit_jax.types import PyTree

# Logs of processes, profiles and whatever else is on the disk.
SPARE_MIB = 64.0


class Outlook(NamedTuple):
  """What is free, and what the saves to come need, in MiB.

  Attributes:
    free: infinite in an object store.
    need: of `saves` checkpoints, of metrics, and to spare.
    saves: checkpoints that will lie there besides those there are.
    each: size of one.
  """

  free: float
  need: float
  saves: int
  each: float

  def __str__(self) -> str:
    return (
      f"{self.free:,.0f} MiB free, and what is still to be written needs "
      f"{self.need:,.0f} MiB ({self.saves} x {self.each:,.0f} MiB of "
      "checkpoints, and the metrics)"
    )


class Space:
  """Tells once that the disk will be full before the run is whole.

  Args:
    workdir: folder of the run.
    cfg: of the run.
    state: what is saved, arrays or abstract.
    incidents: tells and keeps.
  """

  def __init__(
    self, workdir: paths.Name, cfg: Any, state: PyTree, incidents: Incidents
  ):
    self.workdir, self.cfg, self.incidents = workdir, cfg, incidents
    leaves = jax.tree.leaves(state._replace(frozen=()))
    self.size = sum(x.size * x.dtype.itemsize for x in leaves)
    self.told = False

  def look(self, step: int) -> None:
    """To be called before a save; tells again only after it was well."""
    if self.incidents.process:
      return
    ahead = outlook(self.workdir, self.cfg, step, self.size)
    short = ahead.free < ahead.need
    if short and not self.told:
      facts = {"free_mib": round(ahead.free), "need_mib": round(ahead.need)}
      self.incidents.note(step, "disk", **facts)
      self.incidents.tell(
        f"step {step}: the disk of {self.workdir} will be full before the run "
        f"is whole: {ahead}. Free some space; or stop (ctrl-C saves) and go on "
        "with --config.checkpoint.keep=1 --resume=force"
      )
    self.told = short


def outlook(
  workdir: paths.Name, cfg: Mapping[str, Any], step: int, size: int
) -> Outlook:
  """Looks ahead from a step to the end of a run.

  Args:
    workdir: folder of the run.
    cfg: its config: 'steps' and 'checkpoint'.
    step: where it is.
    size: bytes of a checkpoint.
  """
  folder, saving = paths.as_path(workdir), cfg["checkpoint"]
  left = max(cfg["steps"] - step, 0)
  to_come = 1 + (left // saving["every"] if saving["every"] else 0)
  kept = saving["keep"] + (saving.get("best", "none") != "none")
  # A new one is written before an old one is removed.
  saves = min(to_come, max(kept - len(checkpointer.steps(folder)), 0) + 1)
  each = size / 2**20
  metrics = _metrics_mib(folder) * left / step if step else 0.0
  need = saves * each + metrics + SPARE_MIB
  return Outlook(paths.free_mib(folder), need, saves, each)


def folder_bytes(folder: paths.Path) -> int:
  """Bytes of all files below a folder; one may vanish meanwhile."""
  total = 0
  for path in folder.rglob("*"):
    try:
      total += path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
      continue
  return total


def _metrics_mib(folder: paths.Path) -> float:
  if paths.is_remote(folder):
    return 0.0
  rows = folder / "metrics.jsonl"
  events = folder_bytes(folder / "tb")
  return ((rows.stat().st_size if rows.exists() else 0) + events) / 2**20
