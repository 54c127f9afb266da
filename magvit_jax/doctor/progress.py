"""How far the run is, and whether it goes on."""

import time

import numpy as np

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import MIN_ROWS, Run

# Evaluating, saving and compiling leave no rows; half an hour covers them, and
# so do twenty times the usual gap where rows are rare.
SILENT_SECONDS = 1800.0
SILENT_GAPS = 20


def check(run: Run) -> list[Finding]:
  """Whole or not, silent or not, enough rows or not."""
  found = [Finding("progress", "note", note) for note in run.notes]
  if run.done:
    what = f"done: all {run.steps:,} steps are trained"
    found.append(Finding("progress", "ok", what))
  else:
    found.append(_under_way(run))
  if len(run.train) < MIN_ROWS:
    what = (
      f"not enough rows yet: {len(run.train)} rows of training, and curves are "
      f"judged from {MIN_ROWS} on"
    )
    cure = f"wait, or log.every={max(1, run.steps // 50)}"
    found.append(Finding("progress", "note", what, cure))
  return found


def _under_way(run: Run) -> Finding:
  good = max((row["step"] for row in run.train), default=0)
  what = (
    f"not finished: step {run.step:,} of {run.steps:,}, the last good step "
    f"logged is {good:,}"
  )
  path = run.path / "metrics.jsonl"
  if not path.exists():
    return Finding("progress", "note", f"{what}; nothing is logged yet")
  silent = time.time() - path.stat().st_mtime
  gaps = run.series("seconds_step")[1] * run.get("log.every", 1)
  usual = float(np.median(gaps)) if len(gaps) else 0.0
  if silent < max(SILENT_SECONDS, SILENT_GAPS * usual):
    return Finding("progress", "note", f"{what}; training, as it seems")
  return Finding(
    "progress",
    "warn",
    f"{what}; nothing was written for {silent / 3600:.1f} hours, so that it "
    "has stopped or hangs",
    "run the same train command again: it goes on from the last whole "
    "checkpoint",
  )
