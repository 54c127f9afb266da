"""The weights of the newest whole checkpoint: finite, and none left at zero."""

import numpy as np

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run

SHOWN = 3  # names of leaves in a finding


def check(run: Run) -> list[Finding]:
  """Leaves that are not finite, matrices that are all zero."""
  if not run.weights:
    return []
  broken = [k for k, v in run.weights.items() if not np.isfinite(v).all()]
  found = []
  if broken:
    found.append(
      Finding(
        "weights",
        "wrong",
        f"{len(broken)} arrays are not finite: {_some(broken)}",
        "go back to an earlier checkpoint: move the later folders out of "
        f"{run.path / 'checkpoints'} and train on with a lower stage.optim.lr",
      )
    )
  # A bias may well stay at zero; a matrix that does gets no gradient.
  empty = [
    name
    for name, x in run.weights.items()
    if name.startswith("params/") and x.ndim > 1 and not x.any()
  ]
  if empty:
    found.append(
      Finding(
        "weights",
        "warn",
        f"{len(empty)} matrices are all zero: {_some(empty)}",
        "they take no part: look at what feeds them, and at stage.optim.lr",
      )
    )
  if not found:
    count = sum(v.size for k, v in run.weights.items() if k[0] == "p")
    what = f"{count:,} numbers, all finite"
    found.append(Finding("weights", "ok", what))
  return found


def _some(names: list[str]) -> str:
  more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
  return ", ".join(names[:SHOWN]) + more
