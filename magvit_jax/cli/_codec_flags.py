"""What the verbs `encode` and `decode` share: flags and progress."""

import argparse
import sys

import tqdm


def parser(verb: str, description: str) -> argparse.ArgumentParser:
  """Parser with the flags of both verbs; the caller adds input and output."""
  out = argparse.ArgumentParser(
    prog=f"python -m magvit_jax {verb}",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  out.add_argument(
    "--workdir", required=True, help="run of the tokenizer to use"
  )
  out.add_argument(
    "--step", type=int, help="checkpoint to use (default: the newest)"
  )
  out.add_argument(
    "--tile",
    type=int,
    default=512,
    help="frames wider or higher than this many pixels go through in "
    "overlapping tiles; smaller needs less memory (default: 512)",
  )
  out.add_argument(
    "--overwrite", action="store_true", help="replace an existing output"
  )
  return out


def bar(verb: str, frames: int) -> tqdm.tqdm:
  """Progress over frames with the time left; rare lines if not a terminal."""
  return tqdm.tqdm(
    total=frames,
    desc=verb,
    unit="frame",
    mininterval=0.2 if sys.stderr.isatty() else 30,
  )
