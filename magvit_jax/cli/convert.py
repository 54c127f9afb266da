"""Turns public weights into a file that this program reads.

  python -m magvit_jax convert --from=vgg16_lpips --input=vgg16-397923af.pth \\
    --input=vgg.pth --out=vgg16_lpips.safetensors

Download the public files first; --from alone says which and where. Reading a
.pth needs torch (pip install 'magvit_jax[convert]'); one that holds more than
tensors is refused.
"""

import argparse
import importlib
from typing import Any

from magvit_jax import convert as converting
from magvit_jax import pretrained, registry, token_file
from magvit_jax import tree as trees
from magvit_jax.convert import reading


def main(argv: list[str]) -> int:
  """Runs the verb with its arguments; returns the exit code."""
  args = _parser().parse_args(argv)
  registry.load("convert", args.source)
  source = importlib.import_module(f"magvit_jax.convert.{args.source}")
  if not args.input:
    print(_about(args.source, source))
    return 0
  if not args.out.endswith(".safetensors"):
    raise ValueError(f"--out={args.out!r} must end in .safetensors")
  token_file.check_target(args.out, args.overwrite)
  for path in args.input:
    # A file that is not there is said so before any is hashed.
    pretrained.check_there(path, "--input")
  for path in args.input:
    print(converting.checksum_text(path, source.FILES))
  arrays = source.convert(reading.read_all(args.input))
  what = f"the arrays of {', '.join(args.input)}"
  tree = pretrained.fit(arrays, source.shapes(), what)
  pretrained.write(args.out, trees.named(tree), source.NOTES)
  print(
    f"{args.out}: {trees.count(tree):,} numbers in {len(arrays)} arrays\n"
    f"train with {source.USE.format(out=args.out)}"
  )
  return 0


def _about(name: str, source: Any) -> str:
  """What the source is and its public files."""
  lines = [f"{name}: {source.__doc__.strip()}", ""]
  for file, public in source.FILES.items():
    lines += [f"{file}: {public.holds}", f"  {public.url}"]
    lines += [f"  sha256 {public.sha256}{'…' * (len(public.sha256) < 64)}"]
  return "\n".join(lines).rstrip()


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax convert",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  known = ", ".join(registry.names("convert"))
  parser.add_argument(
    "--from", required=True, dest="source", help=f"one of {known}"
  )
  parser.add_argument(
    "--input", action="append", help="public file; give it once for each"
  )
  parser.add_argument("--out", default="", help="file to write, *.safetensors")
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an existing output"
  )
  return parser
