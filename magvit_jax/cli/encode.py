"""Turns a video of any length and size into a file of tokens.

  python -m magvit_jax encode --workdir=runs/quickstart in.mp4 out.npz

The video is read, encoded and forgotten piece by piece; only the tokens stay
in memory. Sizes that the tokenizer's grid does not divide are padded, and the
file says by how much. An image counts as a video of one frame.
"""

import argparse
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from magvit_jax import api, token_file
from magvit_jax.cli import _codec_flags as codec_flags
from magvit_jax.data import video_io


def main(argv: list[str]) -> int:
  """Runs the verb with its arguments; returns the exit code."""
  args = _parser().parse_args(argv)
  _check_output(args)
  info = video_io.probe(args.input)
  if info.has_audio:
    print(
      f"note: {args.input} has sound; tokens hold pictures only, so the sound "
      "is not in the output",
      file=sys.stderr,
    )
  tok = api.load_tokenizer(args.workdir, step=args.step, tile=args.tile)
  kind = token_file.id_type(tok.sizes)
  with codec_flags.bar("encode", info.frames) as bar:
    stream = tok.encode_stream(_pieces(args.input, bar))
    ids = np.concatenate([part.astype(kind) for part in stream], axis=1)[0]
    frames = bar.n
  meta = _meta(tok, info, frames, ids, args)
  token_file.write(args.output, ids, meta)
  print(_summary(args, ids, meta))
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = codec_flags.parser("encode", __doc__)
  parser.add_argument("input", help="video (or image) to read")
  parser.add_argument("output", help="file of tokens to write, *.npz")
  return parser


def _check_output(args: argparse.Namespace) -> None:
  if pathlib.Path(args.output).suffix != ".npz":
    raise ValueError(
      f"{args.output} does not end in .npz, which is what encode writes"
    )
  token_file.check_target(args.output, args.overwrite)


def _pieces(path: str, bar: Any) -> Iterator[np.ndarray]:
  """Frames [1 1 h w 3] as they are read."""
  for frame in video_io.read_frames(path):
    bar.update()
    yield frame[None, None]


def _meta(tok, info, frames, ids, args) -> token_file.Meta:
  st, sh, sw = tok.strides
  t, h, w = ids.shape[:3]
  return token_file.Meta(
    frames=frames,
    height=info.height,
    width=info.width,
    pad=(1 + (t - 1) * st - frames, h * sh - info.height, w * sw - info.width),
    fps=str(info.fps),
    strides=tok.strides,
    sizes=tok.sizes,
    fingerprint=tok.fingerprint,
    source=pathlib.Path(args.input).name,
  )


def _summary(args, ids, meta) -> str:
  pixels = meta.frames * meta.height * meta.width
  bits = ids[..., 0].size * sum(math.log2(size) for size in meta.sizes)
  padded = [
    f"{count} {what}"
    for count, what in zip(
      meta.pad, ("frames", "lines", "columns"), strict=True
    )
    if count
  ]
  return (
    f"{args.output}: {meta.frames} frames of {meta.height}x{meta.width} -> "
    f"{'x'.join(map(str, ids.shape[:3]))} tokens, {bits / pixels:.4f} bits "
    f"per pixel, padded by {', '.join(padded) or 'nothing'}"
  )
