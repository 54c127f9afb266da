"""Trains the quickstart's tokenizer and sets its figures beside the targets.

  python benchmarks/quickstart.py
  python benchmarks/quickstart.py --memory       also benchmarks/memory.py
  python benchmarks/quickstart.py --config=tokenizer/clips:smoke   tries it out

The full run takes about 9 minutes on a quiet 2-core machine. The training is
one process with a fresh workdir; its peak is what the kernel says of it when
it has left (Linux). Exits with 1 if a target is missed.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from magvit_jax.monitoring import goodput

HERE = pathlib.Path(__file__).parent


class Figure(NamedTuple):
  """One line of the table: the target is an upper or a lower bound."""

  name: str
  value: float
  unit: str
  bound: str
  target: float

  @property
  def reached(self) -> bool:
    """Whether the value is on the right side of the target."""
    if self.bound == ">=":
      return self.value >= self.target
    return self.value <= self.target


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="tokenizer/clips")
  parser.add_argument("--workdir", help="an empty one; default: a temporary")
  parser.add_argument("--memory", action="store_true")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    workdir = pathlib.Path(args.workdir or scratch)
    wall = train(args.config, workdir)
    figures = measure(read(workdir / "metrics.jsonl"), wall)
  print(table(figures))
  code = int(not all(figure.reached for figure in figures))
  if args.memory:
    print(flush=True)
    command = [sys.executable, str(HERE / "memory.py")]
    code |= subprocess.run([*command, f"--config={args.config}"]).returncode
  return code


def train(config: str, workdir: pathlib.Path) -> float:
  """Trains in a process of its own; returns its wall seconds."""
  command = [sys.executable, "-m", "magvit_jax", "train", f"--config={config}"]
  command += [f"--workdir={workdir}", "--resume=never"]
  begin = time.perf_counter()
  subprocess.run(command, check=True)
  return time.perf_counter() - begin


def read(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """The rows of metrics.jsonl by kind."""
  rows: dict[str, list[dict[str, Any]]] = {}
  for line in path.read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    rows.setdefault(row["kind"], []).append(row)
  return rows


def measure(rows: dict[str, list[dict[str, Any]]], wall: float) -> list[Figure]:
  """The figures of issue 2 from what a run has written."""
  last, spent = rows["eval"][-1], goodput.add_up(rows["time"])
  psnr, floor = last["eval_psnr"], last["eval_psnr_box"]
  training = spent["step"] + spent["data"]
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
  return [
    Figure("held-out PSNR", psnr, "dB", ">=", 22.0),
    Figure("PSNR over box means", psnr - floor, "dB", ">=", 1.0),
    Figure("bits per pixel", last["eval_bits_per_pixel"], "", "<=", 0.1),
    Figure("training (steps and data)", training / 60, "min", "<=", 7.0),
    Figure("the whole verb", wall / 60, "min", "<=", 10.0),
    Figure("waiting for data", 100 * data_share(rows), "%", "<=", 5.0),
    Figure("peak resident memory", peak, "GiB", "<=", 4.0),
  ]


def data_share(rows: dict[str, list[dict[str, Any]]]) -> float:
  """Share of the step time that the loop waited for its next batch."""
  waited = sum(row["seconds_data"] for row in rows["train"])
  return waited / sum(row["seconds_step"] for row in rows["train"])


def table(figures: list[Figure]) -> str:
  """The figures as a Markdown table, ready for RESULTS.md."""
  lines = [f"| {'figure':<26}| {'measured':>12} | {'target':>12} |    |"]
  lines.append(f"|{'-' * 27}|{'-' * 13}:|{'-' * 13}:|----|")
  for f in figures:
    measured = f"{f.value:.3g} {f.unit}".strip()
    target = f"{f.bound} {f.target:g} {f.unit}".strip()
    mark = "ok" if f.reached else "NO"
    lines.append(f"| {f.name:<26}| {measured:>12} | {target:>12} | {mark} |")
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
