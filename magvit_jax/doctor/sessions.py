"""How often a run was started, and how each time ended."""

from typing import Any, NamedTuple

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run
from magvit_jax.monitoring import liveness

STUCK = 3  # sessions in a row that began at the same step


class Session(NamedTuple):
  """From a start to its end, as incidents.jsonl has it.

  Attributes:
    start: its first row.
    rows: the others, of all processes.
    end: the row 'ended' or 'failed' of process 0, None if there is none.
  """

  start: dict[str, Any]
  rows: list[dict[str, Any]]
  end: dict[str, Any] | None

  @property
  def runs(self) -> bool | None:
    """Whether its process runs; None where that is not known here."""
    return False if self.end else liveness.runs(self.start["mark"])


def sessions(run: Run) -> list[Session]:
  """All of them, in the order of time; [] for runs that kept no incidents."""
  found: list[list[dict[str, Any]]] = []
  for row in run.incidents:
    if row["kind"] == "start" and not row["process"]:
      found.append([row])
    elif found:
      found[-1].append(row)
  return [Session(rows[0], rows[1:], _end(rows)) for rows in found]


def last_session(run: Run) -> Session | None:
  """The latest, None for runs that kept no incidents."""
  return next(reversed(sessions(run)), None)


def check(run: Run) -> list[Finding]:
  """Starts, failures, and a run that fails again and again at one place."""
  found = sessions(run)
  if not found:
    return []
  lost = [s for s in found[:-1] if not s.end or s.end["kind"] == "failed"]
  if stuck := _stuck(run, found):
    return [stuck]
  if not lost:
    times = f"started {len(found)} times" if len(found) > 1 else "started once"
    return [Finding("sessions", "ok", f"{times}, each end was meant")]
  killed = sum(not s.end for s in lost)
  errors = [s.end["error"] for s in lost if s.end]
  what = (
    f"started {len(found)} times; {killed} ended without a word (killed, "
    f"perhaps), {len(errors)} by an error"
  )
  if errors:
    what += f", the last one by {errors[-1][:200]}"
  every = max(1, run.config["checkpoint"]["every"] // 2)
  cure = (
    "each of them lost the steps since its last checkpoint: "
    f"checkpoint.every={every} loses less"
  )
  return [Finding("sessions", "note", what, cure)]


def _stuck(run: Run, found: list[Session]) -> Finding | None:
  """A run that does not get further however often it is started."""
  last = found[-STUCK:]
  ended = all(s.runs is False for s in last)
  steps = {s.start["step"] for s in last}
  if run.done or len(last) < STUCK or not ended or len(steps) > 1:
    return None
  if any(s.end and s.end["kind"] == "ended" for s in last):
    return None
  (step,) = steps
  errors = [s.end["error"] for s in last if s.end]
  how = f"by {errors[-1][:300]}" if errors else "without a word"
  return Finding(
    "sessions",
    "wrong",
    f"the last {STUCK} starts all began at step {step:,} and ended {how}",
    "starting it again will not help: mend that first"
    if errors
    else "look for a kill by the system (out of memory: dmesg) or by the "
    "scheduler; a smaller checkpoint.every saves before it comes",
  )


def _end(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
  ends = [r for r in rows if r["kind"] in ("ended", "failed")]
  return next((r for r in ends if not r["process"]), None)
