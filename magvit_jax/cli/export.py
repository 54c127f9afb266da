"""Export a trained tokenizer or generator as one folder that stands alone.

Example:

  python -m magvit_jax export --workdir=runs/clips --out=clips_tokenizer

The folder holds the averaged weights (params.safetensors), programs of
jax.export for any number of clips and frames (encode.stablehlo,
decode.stablehlo; sample.stablehlo of a generator), config.json, and
MODEL_CARD.md. load_tokenizer and load_generator open it as they open a workdir.
"""

import argparse

from magvit_jax import export
from magvit_jax.export import card, programs, write


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0."""
  args = _parser().parse_args(argv)
  out = write.write(
    args.workdir,
    args.out,
    platforms=args.platforms.split(","),
    dtype=args.dtype,
    step=args.step,
    license=args.license,
  )
  for path in sorted(out.iterdir()):
    print(f"{path.stat().st_size:>12,}  {path.name}")
  print(f"exported to {out}; {export.CARD} says how to load it")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax export",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument(
    "--out", required=True, help="folder to make; nothing is overwritten"
  )
  parser.add_argument(
    "--platforms",
    default="cpu,tpu,cuda",
    help="that the programs run on, some of "
    f"{','.join(programs.PLATFORMS)} (default: cpu,tpu,cuda)",
  )
  parser.add_argument(
    "--dtype",
    choices=write.DTYPES,
    help="that they compute in, 'auto' being bfloat16 on all but CPUs "
    "(default: as the run); weights are kept in float32",
  )
  parser.add_argument(
    "--step", type=int, help="checkpoint; default: the newest"
  )
  parser.add_argument(
    "--license",
    default=card.LICENSE,
    help="of the weights, for the card (default: '%(default)s')",
  )
  return parser
