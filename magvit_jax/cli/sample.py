"""Generate videos with a trained generator.

Samples of a class, or of all classes in turn without --label:

  python -m magvit_jax sample --workdir=runs/quickstart/generator \\
    --task=class_cond --label=bikes --num=4 --out=samples

The futures of a clip whose first frames are given:

  python -m magvit_jax sample --workdir=runs/quickstart/generator \\
    --task=frame_prediction --input=clip.mp4 --num=4 --out=futures

OUT gets one mp4 and one npz of ids per sample (000.mp4, 000.npz …) and the
contact sheet sheet.png, where given frames carry a bar of colour.
"""

import argparse
import os
import pathlib
import sys
from fractions import Fraction
from typing import Any

import numpy as np

from magvit_jax import registry, sampler, token_file
from magvit_jax.data import transforms, video_io, video_write
from magvit_jax.report import sheets

FPS = Fraction(8)  # of what has no input to take it from
METHOD = ("steps", "guidance", "temperature", "choice_temperature")
METHOD += ("top_k", "top_p")
MAX_ROWS = 24  # of the contact sheet


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0."""
  args = _parser().parse_args(argv)
  _check_outputs(args)
  gen = sampler.load_generator(args.workdir, step=args.step)
  _check_task(gen, args)
  method = {k: v for k in METHOD if (v := getattr(args, k)) is not None}
  method |= dict(num=args.num, seed=args.seed)
  rows: list[sheets.Row] = []
  given, fps, source = 0, args.fps or FPS, args.task
  if _predicts(gen, args.task):
    given = gen.check_frames(_frames(gen, args))
    clip, info = read_input(args.input, gen.shape, given, args.fit)
    fps, source = args.fps or info.fps, pathlib.Path(args.input).name
    if len(clip) == gen.shape[0]:
      rows.append(sheets.Row("input", clip, given))
    ids = gen.predict_ids(clip, frames=given, **method)
    names = [f"{k:03d}" for k in range(args.num)]
  else:
    labels = _labels(gen, args)
    ids = gen.sample_ids(labels, **method)
    names = [f"{k:03d} {gen.labels[n]}" for k, n in enumerate(labels)]
  videos = transforms.to_uint8(gen.decode(ids))
  rows += [
    sheets.Row(name.strip(), video, given)
    for name, video in zip(names, videos, strict=True)
  ]
  _write(args, gen, ids, videos, Fraction(fps), source)
  sheet = sheets.contact_sheet(rows[:MAX_ROWS])
  sheet.save(pathlib.Path(args.out) / "sheet.png")
  print(
    f"{args.out}: {args.num} videos of {'x'.join(map(str, gen.shape[:3]))} as "
    "mp4 and npz of ids, and sheet.png"
  )
  return 0


def _parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m magvit_jax sample",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  out.add_argument("--workdir", required=True, help="run of the generator")
  out.add_argument("--task", required=True, help="a task of the checkpoint")
  out.add_argument("--out", required=True, help="folder for what is made")
  out.add_argument("--input", help="video whose first frames are given")
  out.add_argument("--frames", type=int, help="how many of them are given")
  out.add_argument(
    "--fit",
    action="store_true",
    help="resize the input and crop its centre to the trained size",
  )
  out.add_argument(
    "--label", help="name or number of a class (default: all, in turn)"
  )
  out.add_argument("--num", type=int, default=4, help="samples (default: 4)")
  out.add_argument("--seed", type=int, default=0, help="(default: 0)")
  out.add_argument("--step", type=int, help="checkpoint (default: the newest)")
  out.add_argument("--fps", type=Fraction, help="frames per second written")
  out.add_argument("--overwrite", action="store_true", help="replace outputs")
  method = out.add_argument_group("decoding (defaults: those of the run)")
  method.add_argument("--steps", type=int, help="passes of the transformer")
  method.add_argument("--guidance", type=float, help="0 is none")
  method.add_argument("--temperature", type=float, help="of the ids")
  method.add_argument("--choice_temperature", type=float, help="of the order")
  method.add_argument("--top_k", type=int, help="0 keeps all ids")
  method.add_argument("--top_p", type=float, help="1 keeps all ids")
  return out


def _targets(args: argparse.Namespace) -> list[pathlib.Path]:
  out = pathlib.Path(args.out)
  stems = [f"{k:03d}" for k in range(args.num)]
  files = [out / f"{s}{end}" for s in stems for end in (".mp4", ".npz")]
  return [*files, out / "sheet.png"]


def _check_outputs(args: argparse.Namespace) -> None:
  """Refuses what would be lost or cannot be written, before the work."""
  if args.num < 1:
    raise ValueError(f"--num is {args.num}; it must be at least 1")
  if args.fps is not None and args.fps <= 0:
    raise ValueError(f"--fps is {args.fps}; it must be above 0")
  out = pathlib.Path(args.out)
  if out.exists() and not out.is_dir():
    raise NotADirectoryError(f"--out={out} is a file; give a folder")
  there = next((path for path in _targets(args) if path.exists()), None)
  if there and not args.overwrite:
    raise FileExistsError(
      f"{there} exists and stays as it is; give another --out, or --overwrite"
    )
  parent = next(
    path for path in (out, *out.absolute().parents) if path.exists()
  )
  if not os.access(parent, os.W_OK):
    raise PermissionError(
      f"--out={out} cannot be written: no permission in the folder {parent}"
    )


def _predicts(gen: Any, task: str) -> bool:
  return task in gen.given_frames().values() or task == "frame_prediction"


def _check_task(gen: Any, args: argparse.Namespace) -> None:
  """Refuses a task the checkpoint lacks and flags that it does not read."""
  known = tuple(gen.tasks)
  predicts = _predicts(gen, args.task)
  fits = gen.given_frames() if predicts else args.task == gen.class_task()
  if not fits:
    raise ValueError(
      f"the checkpoint was not trained for --task={args.task}"
      f"{registry.suggest(args.task, known)}; its tasks are {', '.join(known)}"
    )
  if predicts and args.input is None:
    raise ValueError(
      f"--task={args.task} continues a clip; give it with --input=clip.mp4"
    )
  if predicts and args.label is not None:
    raise ValueError(f"--task={args.task} takes no --label; leave it out")
  unread = [f"--{k}" for k in ("input", "frames", "fit") if getattr(args, k)]
  if not predicts and unread:
    raise ValueError(
      f"--task={args.task} reads no clip, so {' and '.join(unread)} mean "
      "nothing to it; leave them out, or give --task=frame_prediction"
    )


def _frames(gen: Any, args: argparse.Namespace) -> int | None:
  """The given frames: --frames, or those of the named task."""
  if args.frames is not None:
    return args.frames
  names = {name: frames for frames, name in gen.given_frames().items()}
  return names.get(args.task)


def _labels(gen: Any, args: argparse.Namespace) -> np.ndarray:
  if args.label is not None:
    return gen.label_numbers(args.label, args.num)
  return np.arange(args.num) % len(gen.labels)


def read_input(
  path: str, shape: tuple[int, int, int, int], given: int, fit: bool
) -> tuple[np.ndarray, video_io.Info]:
  """The start of a clip at the trained size, and what its file holds.

  Args:
    path: a video or an image.
    shape: (t, h, w, 3) of the generator.
    given: frames that must be there; up to t are read.
    fit: resize it to cover h x w and crop its centre.

  Returns:
    uint8 [n h w 3] with given <= n <= t.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is too short, or has another size and `fit` is off.
  """
  info = video_io.probe(path)
  t, h, w, _ = shape
  if info.frames < given:
    raise ValueError(
      f"{path} has {info.frames} frames; this task needs the first {given}"
    )
  if not fit and (info.height, info.width) != (h, w):
    raise ValueError(
      f"{path} has pictures of {info.height}x{info.width} (height x width); "
      f"the checkpoint was trained on {h}x{w}. Give such a clip, or --fit to "
      "resize it and crop its centre"
    )
  if info.has_audio:
    print(f"note: the sound of {path} is not used", file=sys.stderr)
  lines = h if fit else None
  least = (h, w) if fit else (1, 1)
  count = min(t, info.frames)
  video = video_io.read_clip(path, 0, count, lines=lines, least=least)
  top, left = (video.shape[1] - h) // 2, (video.shape[2] - w) // 2
  return transforms.crop(video, top, left, (h, w)), info


def _write(args, gen, ids, videos, fps: Fraction, source: str) -> None:
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  t, h, w, _ = gen.shape
  meta = token_file.Meta(
    frames=t,
    height=h,
    width=w,
    pad=(0, 0, 0),
    fps=str(fps),
    strides=gen.tokenizer.strides,
    sizes=gen.tokenizer.sizes,
    fingerprint=gen.tokenizer.fingerprint,
    source=source,
  )
  for k, (one, video) in enumerate(zip(ids, videos, strict=True)):
    token_file.write(out / f"{k:03d}.npz", one, meta)
    video_write.write_video(out / f"{k:03d}.mp4", video, fps)
