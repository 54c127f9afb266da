"""Look at a run and say what is wrong with it and what to change.

Example:

  python -m magvit_jax doctor --workdir=runs/clips

It reads config.json, metrics.jsonl, incidents.jsonl and the checkpoints (each
file and array, against its checksum), on the CPU only: it may run beside the
training, or after it, also of a workdir in gs://.
`wrong` is a broken run, `warn` probably costs quality or time, `note` is worth
knowing. The exit status is 0 where nothing is wrong, 1 where something is, and
2 where there is no run to look at. --json prints the same for machines.
"""

import argparse
import json
import textwrap

import jax

from magvit_jax import doctor

WIDTH = 80
INDENT = 7  # of the text after a severity


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0, or 1 if something is wrong."""
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax doctor",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument("--json", action="store_true", help="print JSON")
  args = parser.parse_args(argv)
  # The training may hold the accelerator, and only one process can.
  jax.config.update("jax_platforms", "cpu")
  run, found = doctor.diagnose(args.workdir)
  print(as_json(run, found) if args.json else as_text(run, found))
  return int(any(f.severity == "wrong" for f in found))


def as_json(run: doctor.Run, found: list[doctor.Finding]) -> str:
  """One object: workdir, step, steps, done and the findings."""
  document = {
    "workdir": str(run.path),
    "step": run.step,
    "steps": run.steps,
    "done": run.done,
    "findings": [f._asdict() for f in found],
  }
  return json.dumps(document, indent=2)


def as_text(run: doctor.Run, found: list[doctor.Finding]) -> str:
  """A line or more for each finding, the worst first, and a summary."""
  stage = run.get("stage.name")
  lines = [f"{run.path}: {stage}, step {run.step:,} of {run.steps:,}", ""]
  for f in found:
    lines += _wrap(f"{f.severity:<{INDENT}}", f"{f.name}: {f.what}")
    if f.cure:
      lines += _wrap(" " * INDENT, f"-> {f.cure}")
  counts = [
    f"{sum(f.severity == s for f in found)} {s}" for s in doctor.SEVERITIES
  ]
  return "\n".join([*lines, "", ", ".join(counts)])


def _wrap(head: str, text: str) -> list[str]:
  return textwrap.wrap(
    text,
    WIDTH,
    initial_indent=head,
    subsequent_indent=" " * (INDENT + 2),
    # Config keys and paths are copied from here: they stay in one piece.
    break_on_hyphens=False,
    break_long_words=False,
  )
