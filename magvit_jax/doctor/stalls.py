"""Where a run stood still, and whether it does so now."""

from typing import Any

from magvit_jax import messages
from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run
from magvit_jax.doctor.sessions import last_session
from magvit_jax.monitoring import watchdog

# A minute in an hour is what slow storage costs now and then.
SHARE = 0.02


def check(run: Run) -> list[Finding]:
  """Stalls that lasted, and one that lasts, by what was waited for."""
  found = _now(run)
  ended = run.told("goes_on")
  by_part: dict[str, float] = {}
  for row in ended:
    by_part[row["part"]] = by_part.get(row["part"], 0.0) + row["seconds"]
  for part, seconds in sorted(by_part.items()):
    count = sum(row["part"] == part for row in ended)
    share = seconds / max(_seconds(run), seconds)
    what = (
      f"{count} times it stood still, {seconds / 60:.0f} min in all "
      f"({share:.1%} of the run): {watchdog.NAMES[part]}{_files(run, part)}"
    )
    severity = "warn" if share > SHARE else "note"
    found.append(Finding("stalls", severity, what, watchdog.CURES[part]))
  if not found and run.incidents:
    found.append(Finding("stalls", "ok", "it never stood still for long"))
  return found


def _now(run: Run) -> list[Finding]:
  """A stall of the session that runs, of which no end was told."""
  session = last_session(run)
  if run.done or not session or session.end:
    return []
  opened: dict[int, dict[str, Any]] = {}
  for row in session.rows:
    if row["kind"] == "stall":
      opened[row["process"]] = row
    elif row["kind"] == "goes_on":
      opened.pop(row["process"], None)
  if not opened or session.runs is False:
    return []
  # Of several processes most wait in a step for the one that waits for data.
  row = min(opened.values(), key=lambda row: row["part"] == "step")
  who = (
    f" on process {row['process']}" if session.start["processes"] > 1 else ""
  )
  what = (
    f"it stands still at step {row['step']:,} since {row['time']}{who}: "
    f"{watchdog.NAMES[row['part']]}{_files(run, row['part'])}"
  )
  cure = f"{watchdog.CURES[row['part']]}; see stall_{row['step']}.txt"
  return [Finding("stalls", "wrong", what, cure)]


def _files(run: Run, part: str) -> str:
  rows = [row for row in run.told("stall") if row["part"] == part]
  files = sorted({name for row in rows for name in row["files"]})
  return f", reading {messages.some(files)}" if files else ""


def _seconds(run: Run) -> float:
  steps, seconds = run.series("seconds_step")
  return float(seconds.mean() * steps[-1]) if len(steps) else 0.0
