"""Clips that could not be read and were replaced by the next ones."""

from magvit_jax import messages
from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run

# One broken file of a hundred does no harm; more is a fault of the data.
SHARE = 0.01


def check(run: Run) -> list[Finding]:
  """How many examples were replaced so far."""
  skipped = total(run)
  if not run.step:
    return []
  if not skipped:
    return [Finding("clips", "ok", "all clips could be read")]
  names = sorted(
    {name for row in run.told("unreadable") for name in row["names"]}
  )
  which = "see 'unreadable' in the output of the run"
  if names:
    which = f"incidents.jsonl names {len(names)}: {messages.some(names)}"
  share = skipped / (run.step * run.config["batch"])
  return [
    Finding(
      "clips",
      "warn" if share > SHARE else "note",
      f"{skipped:,} clips could not be read ({share:.2%} of the examples) and "
      f"were replaced by the next ones; {which}",
      "mend or remove these files",
    )
  ]


def total(run: Run) -> int:
  """Clips skipped over all sessions: each one counts from 0."""
  _, values = run.series("skipped")
  before, count = 0.0, 0.0
  for value in values:
    count += value - before if value >= before else value
    before = value
  return int(count)
