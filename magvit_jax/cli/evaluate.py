"""Measure a trained tokenizer on held-out video.

Example, on the run's own held-out clips and then on another folder:

  python -m magvit_jax evaluate --workdir=runs/clips
  python -m magvit_jax evaluate --workdir=runs/clips --root=/my/videos

Prints every metric of the run's config with PSNR beside its floor, the PSNR of
box means at the token grid, and writes WORKDIR/evaluation.json. A result of
other settings or another step is kept: the new one gets another name.
"""

import argparse
import json
import math
from typing import Any

from magvit_jax.checkpoints import trained_run
from magvit_jax.files import paths
from magvit_jax.training import evaluation

UNITS = {"psnr": " dB", "psnr_box": " dB"}


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0."""
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax evaluate",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument(
    "--root", help="folder of videos instead of the run's own"
  )
  parser.add_argument(
    "--clips", type=int, help="number of clips; default: as in the config"
  )
  parser.add_argument(
    "--split",
    default="eval",
    choices=("eval", "train"),
    help="train: clips it was trained on, to see how much is memorised",
  )
  parser.add_argument(
    "--step", type=int, help="checkpoint; default: the newest"
  )
  args = parser.parse_args(argv)
  if args.clips is not None and args.clips < 1:
    parser.error(f"--clips is {args.clips}; it must be at least 1")
  run = _open(args)
  results = evaluation.evaluate(
    run.predict,
    run.state,
    run.source,
    run.config["eval"]["metrics"],
    batch=run.config["eval"]["batch"],
    context=run.stage.context,
  )
  settings = {
    "step": run.step,
    "split": args.split,
    "root": args.root,
    "clips": len(run.source),
    "files": len(run.source.files),
  }
  print(table(settings, results))
  print(f"written to {save(paths.as_path(args.workdir), settings, results)}")
  return 0


def _open(args: argparse.Namespace) -> trained_run.Run:
  data: dict[str, Any] = {}
  if args.root is not None:
    data["root"] = str(paths.absolute(args.root))
  if args.clips is not None:
    data["eval_clips"] = args.clips
  run = trained_run.open_run(
    args.workdir, split=args.split, step=args.step, **data
  )
  if args.split == "eval":
    return run
  # A training source has one item per file and draws a window anew each time.
  count = args.clips or run.config["data"].get("eval_clips", len(run.source))
  indices = [k % len(run.source) for k in range(count)]
  return run._replace(source=evaluation.Picked(run.source, indices))


def table(settings: dict[str, Any], results: dict[str, float]) -> str:
  """The results as text, PSNR and its floor side by side."""
  side = "held-out" if settings["split"] == "eval" else "training"
  lines = [
    f"step {settings['step']}, {settings['clips']} {side} clips of "
    f"{settings['files']} files"
  ]
  shown = dict(results)
  if "psnr" in shown and "psnr_box" in shown:
    psnr, floor = shown.pop("psnr"), shown.pop("psnr_box")
    lines.append(
      f"  {'psnr':<20} {psnr:9.2f} dB   floor (box means) {floor:.2f} dB, "
      f"{psnr - floor:+.2f} dB"
    )
  for name, value in shown.items():
    digits = 2 if name in UNITS else 4
    lines.append(f"  {name:<20} {value:9.{digits}f}{UNITS.get(name, '')}")
  return "\n".join(lines)


def save(
  workdir: paths.Path, settings: dict[str, Any], results: dict[str, float]
) -> paths.Path:
  """Writes evaluation.json, or the next name that holds the same settings.

  Returns:
    The path; a file with other settings is never overwritten.
  """
  stem = "evaluation" if settings["split"] == "eval" else "evaluation-train"
  path, number = workdir / f"{stem}.json", 1
  while path.exists() and _settings(path) != settings:
    number += 1
    path = workdir / f"{stem}-{number}.json"
  metrics = {k: v if math.isfinite(v) else None for k, v in results.items()}
  text = json.dumps({**settings, "metrics": metrics}, indent=2)
  paths.write_text(path, text + "\n")
  return path


def _settings(path: paths.Path) -> dict[str, Any] | None:
  """What a file was measured with, None if it cannot be read."""
  try:
    content = json.loads(paths.read_text(path))
  except json.JSONDecodeError:
    return None
  content.pop("metrics", None)
  return content
