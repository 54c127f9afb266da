"""Turns a file of tokens back into a video.

  python -m magvit_jax decode --workdir=runs/quickstart/tokenizer \\
    out.npz back.mp4

The frame rate and the original length and size come from the file. The
tokenizer must be the one that encoded it. The extension of the output picks
the codec; a file of one frame can be written as an image.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image

from magvit_jax.cli import _codec_flags as codec_flags
from magvit_jax.data import transforms, video_io, video_write
from magvit_jax.files import paths, token_file
from magvit_jax.inference import video_codec


def main(argv: list[str]) -> int:
  """Runs the verb with its arguments; returns the exit code."""
  args = _parser().parse_args(argv)
  if not 0 <= args.quality <= 51:
    raise ValueError(f"--quality is {args.quality}; it must lie in 0 … 51")
  token_file.check_target(args.output, args.overwrite)
  ids, meta = token_file.read(args.input)
  _check_output(args.output, meta)
  tok = video_codec.load_tokenizer(args.workdir, step=args.step, tile=args.tile)
  _check_tokenizer(tok, meta, args)
  with codec_flags.bar("decode", meta.frames) as bar:
    frames = _frames(tok, ids, meta, bar)
    if video_io.is_image(args.output):
      _write_image(args.output, next(frames))
    else:
      video_write.write_video(
        args.output, frames, meta.rate, quality=args.quality
      )
  print(
    f"{args.output}: {meta.frames} frames of {meta.height}x{meta.width} at "
    f"{float(meta.rate):.6g} per second, without sound"
  )
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = codec_flags.parser("decode", __doc__)
  parser.add_argument("input", help="file of tokens to read, *.npz")
  parser.add_argument("output", help="video (or image) to write")
  parser.add_argument(
    "--quality",
    type=int,
    default=18,
    help="constant rate factor of the written video: 0 is lossless, 51 the "
    "worst (default: 18)",
  )
  return parser


def _check_output(path: str, meta: token_file.Meta) -> None:
  """Refuses what cannot be written before the time is spent."""
  if video_io.is_image(path):
    if meta.frames > 1:
      raise ValueError(
        f"{path} is an image but the tokens hold {meta.frames} frames; write "
        f"a video: {' '.join(video_io.VIDEO_EXTENSIONS)}"
      )
  elif paths.as_path(path).suffix.lower() not in video_io.VIDEO_EXTENSIONS:
    raise ValueError(
      f"{path}: cannot write this extension; use one of "
      f"{' '.join(video_io.VIDEO_EXTENSIONS)}"
    )


def _check_tokenizer(tok, meta: token_file.Meta, args) -> None:
  if tok.fingerprint != meta.fingerprint:
    raise ValueError(
      f"{args.input} was encoded by the tokenizer {meta.fingerprint} but "
      f"{args.workdir} holds {tok.fingerprint}: its ids mean other pictures "
      "there. Give the workdir (and --step) that encoded it"
    )


def _frames(tok, ids, meta: token_file.Meta, bar: Any) -> Iterator[np.ndarray]:
  """Frames uint8 [h w 3] of the original length and size."""
  pieces = tok.decode_stream(
    (ids[None, i : i + 1] for i in range(len(ids))),
    frames=meta.frames,
    size=(meta.height, meta.width),
  )
  for piece in pieces:
    for frame in transforms.to_uint8(piece[0]):
      bar.update()
      yield frame


def _write_image(path: str, frame: np.ndarray) -> None:
  """Writes an image; it appears under its name when it is whole."""
  with paths.writing(paths.as_path(path)) as part:
    PIL.Image.fromarray(frame).save(part)
