"""Write the report of a run: one HTML file that opens without a network.

Example:

  python -m magvit_jax report --workdir=runs/clips

Metrics with their floor, curves, reconstructions of held-out clips, use of the
vocabulary, where the time went and the config, in WORKDIR/report.html or in
--out=FILE. The report of a generator shows predicted futures and samples by
class, and ends with the sections of its tokenizer. It may be written while the
run is still training. --beside=WORKDIR shows what another tokenizer makes of
the same clips, such as one trained without a discriminator.
"""

import argparse

from magvit_jax import report
from magvit_jax.files import paths


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0."""
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax report",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument(
    "--out", help="file to write (default: WORKDIR/report.html)"
  )
  parser.add_argument("--beside", help="workdir of another tokenizer to show")
  args = parser.parse_args(argv)
  path = report.write(args.workdir, args.out, args.beside)
  print(f"report: {paths.absolute(path)}")
  return 0
