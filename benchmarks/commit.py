"""COMMIT's ablation in miniature: frame prediction of bouncing digits.

  python benchmarks/commit.py --tokenizer=runs/digits/tokenizer \\
    --out=runs/commit

MAGVIT (arXiv 2212.05199) predicts frames of BAIR with a generator of
one task, trained with parts of its loss, and finds in FVD: condition in front
55, COMMIT with the loss of masked ids alone 388, with those given back 51, with
the condition refined as well 48; a condition that is never masked, with the
loss of masked ids (MaskGIT), 74. This trains the same nets, small ones, on
digits for as many steps each, and prints what held-out clips say of 12 frames
predicted from 5. A run that is done is not repeated.

Exits with 1 unless the whole loss is better than that of masked ids alone.
"""

import argparse
import json
import pathlib
import sys

from magvit_jax.configs.generator import moving_digits
from magvit_jax.training import loop

VARIANTS = {
  "commit, mask": dict(condition="commit", loss="mask"),
  "commit, all": dict(condition="commit", loss="all"),
  "commit, mask+recons": dict(condition="commit", loss="mask+recons"),
  "commit, mask+refine": dict(condition="commit", loss="mask+refine"),
  "hard, mask": dict(condition="hard", loss="mask"),
  "prefix, all": dict(condition="prefix", loss="all"),
}
FIGURES = ("psnr_predicted", "psnr_still", "token_accuracy", "cross_entropy")


def main() -> int:
  """Trains what is not trained and prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--tokenizer", required=True, help="run of the digits'")
  parser.add_argument("--out", required=True, help="folder of the runs")
  parser.add_argument("--steps", type=int, default=1500, help="of each run")
  parser.add_argument("--clips", type=int, default=384, help="held-out clips")
  args = parser.parse_args()
  rows = {}
  for name, parts in VARIANTS.items():
    folder = pathlib.Path(args.out, name.replace(", ", "-"))
    loop.run(config(parts, args), folder)
    rows[name] = last(folder)
  print(f"{'':<21}" + "".join(f"{figure:>16}" for figure in FIGURES))
  for name, row in rows.items():
    values = (row[f"eval_{figure}"] for figure in FIGURES)
    print(f"{name:<21}" + "".join(f"{value:>16.3f}" for value in values))
  gained = [
    rows[f"commit, {x}"]["eval_psnr_predicted"] for x in ("all", "mask")
  ]
  return int(gained[0] <= gained[1])


def config(parts: dict[str, str], args: argparse.Namespace):
  """The config of generator/moving_digits for one variant and one task."""
  cfg = moving_digits.get_config()
  cfg.tokenizer.workdir = args.tokenizer
  cfg.steps = args.steps
  cfg.stage.generator.update(parts)
  del cfg.stage.tasks.class_cond
  cfg.eval.every = args.steps
  cfg.data.eval_clips = args.clips
  return cfg


def last(folder: pathlib.Path) -> dict[str, float]:
  """The last row on held-out clips of a run."""
  text = (folder / "metrics.jsonl").read_text().splitlines()
  return [r for r in map(json.loads, text) if r["kind"] == "eval"][-1]


if __name__ == "__main__":
  sys.exit(main())
