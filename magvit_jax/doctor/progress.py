"""How far the run is, and whether it goes on."""

import time

import numpy as np

from magvit_jax.distributed import preemption
from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import MIN_ROWS, Run
from magvit_jax.doctor.sessions import Session, last_session
from magvit_jax.files import paths

# Evaluating, saving and compiling leave no rows; half an hour covers them, and
# so do twenty times the usual gap where rows are rare.
SILENT_SECONDS = 1800.0
SILENT_GAPS = 20

AGAIN = (
  "run the same train command again: it goes on from the last whole checkpoint"
)


def check(run: Run) -> list[Finding]:
  """Whole or not, stopped, crashed or silent, enough rows or not."""
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
  session = last_session(run)
  if session and session.runs is False:
    return _ended(session, what)
  silent, usual = _silence(run)
  if silent is None:
    return Finding("progress", "note", f"{what}; nothing is logged yet")
  if silent < max(SILENT_SECONDS, SILENT_GAPS * usual):
    seems = "" if session and session.runs else ", as it seems"
    return Finding("progress", "note", f"{what}; training{seems}")
  hours = f"nothing was written for {silent / 3600:.1f} hours"
  if session and session.runs:
    return Finding(
      "progress",
      "warn",
      f"{what}; it runs, but {hours}, so that it hangs",
      "see the finding on stalls, if there is one; then stop it and " + AGAIN,
    )
  what = f"{what}; {hours}, so that it has stopped or hangs"
  return Finding("progress", "warn", what, AGAIN)


def _ended(session: Session, what: str) -> Finding:
  """A session that is over before the run is."""
  end = session.end
  if end is None:
    return Finding(
      "progress",
      "warn",
      f"{what}; its process is gone without a word: killed, or out of memory",
      f"dmesg and the scheduler know which; {AGAIN}",
    )
  if end["kind"] == "failed":
    what = f"{what}; it ended at step {end['step']:,} by {end['error'][:500]}"
    cure = f"mend what the error names, then {AGAIN}"
    return Finding("progress", "wrong", what, cure)
  name = (
    preemption.name(end["signal"]) if end["signal"] else "the end of its steps"
  )
  what = f"{what}; stopped at step {end['step']:,} by {name}, and saved"
  return Finding("progress", "note", what, AGAIN)


def _silence(run: Run) -> tuple[float | None, float]:
  """(seconds since the last row, seconds from row to row), None before one."""
  path = run.path / "metrics.jsonl"
  if not path.exists():
    return None, 0.0
  stat = path.stat()
  changed = stat.mtime if paths.is_remote(path) else stat.st_mtime
  gaps = run.series("seconds_step")[1] * run.config["log"]["every"]
  usual = float(np.median(gaps)) if len(gaps) else 0.0
  return time.time() - changed, usual
