"""Generate and edit videos with a trained generator.

Samples of a class, or of all classes in turn without --label:

  python -m magvit_jax sample --workdir=runs/quickstart/generator \\
    --task=class_cond --label=bikes --num=4 --out=samples

The futures of a clip whose first frames are given, of any length:

  python -m magvit_jax sample --workdir=runs/quickstart/generator \\
    --task=predict --input=clip.mp4 --frames=100 --out=futures

--task is a task of the checkpoint, or one of the verbs, which find the task
that serves: predict, interpolate (between the ends of --input), outpaint (the
input lies in the middle of a canvas of --size=WxH) and inpaint (what --mask
shows in white or --box=TOP,LEFT,BOTTOM,RIGHT encloses is made anew).

OUT gets one mp4 and one npz of ids per sample (000.mp4, 000.npz …; of a video
longer than a clip one npz per chunk, 000-00.npz …) and the contact sheet
sheet.png, where given first frames carry a bar of colour. With --intermediates
the steps of decoding the first sample stand in steps.png.
"""

import argparse
import contextlib
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from magvit_jax.data import transforms, video_io, video_write
from magvit_jax.files import paths, token_file
from magvit_jax.inference import (
  edit_tasks,
  long_video,
  prompts,
  sample_inputs,
  sampler,
)
from magvit_jax.report import sheets, steps
from magvit_jax.types import seed_key

FPS = Fraction(8)  # of what has no input to take it from
METHOD = ("steps", "guidance", "guidance_power", "temperature")
METHOD += ("choice_temperature", "top_k", "top_p")
MAX_ROWS = 24  # of the contact sheet
COLUMNS = 9
PICTURES = ("sheet.png", "steps.png")
ENDS = (".mp4", ".npz", "-*.npz")  # of the files of a sample
# The flags of the inputs of edit_tasks.py; --fit goes with a --input whose size
# is that of a clip.
FLAGS = ("input", "fit", "given", "frames", "label", "size", "mask", "box")


class Job(NamedTuple):
  """What is to be made.

  Attributes:
    prompt: of the first chunk.
    labels: int32 [num].
    frames: of each video.
    given: of them, how many first ones are marked in the sheet.
    rows: of the sheet, before those of the samples.
    fps: of what is written.
    source: what the files say they come from.
  """

  prompt: prompts.Prompt
  labels: np.ndarray
  frames: int
  given: int
  rows: list[sheets.Row]
  fps: Fraction
  source: str


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0."""
  args = _parser().parse_args(argv)
  _check_outputs(args)
  gen = sampler.load_generator(args.workdir, step=args.step)
  kind = edit_tasks.kind(gen.model, args.task)
  _check_flags(kind, args)
  job = _job(gen, kind, args)
  rows = [*job.rows, *_write(gen, job, args)]
  sheet = sheets.contact_sheet(rows[:MAX_ROWS], COLUMNS)
  _save(sheet, args, "sheet.png")
  if args.intermediates:
    _write_steps(gen, job, args)
  size = "x".join(map(str, (job.frames, *gen.shape[1:3])))
  print(
    f"{args.out}: {args.num} videos of {size} as mp4 and npz of ids, and "
    "sheet.png"
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
  out.add_argument(
    "--task",
    required=True,
    help="a task of the checkpoint, or predict, interpolate, outpaint, inpaint",
  )
  out.add_argument("--out", required=True, help="folder for what is made")
  out.add_argument("--input", help="video that something of is given")
  out.add_argument(
    "--given", type=int, help="frames given (default: the fewest there are)"
  )
  out.add_argument("--mask", help="image or video; white is made anew")
  out.add_argument(
    "--box", type=_box, help="TOP,LEFT,BOTTOM,RIGHT in pixels, made anew"
  )
  out.add_argument(
    "--size", type=_size, help="WxH of the canvas around the input"
  )
  out.add_argument(
    "--fit",
    action="store_true",
    help="resize the input and crop its centre to the trained size",
  )
  out.add_argument(
    "--label", help="name or number of a class (default: all, in turn)"
  )
  out.add_argument(
    "--frames", type=int, help="of each video (default: those of a clip)"
  )
  out.add_argument("--num", type=int, default=4, help="samples (default: 4)")
  out.add_argument("--seed", type=int, default=0, help="(default: 0)")
  out.add_argument("--step", type=int, help="checkpoint (default: the newest)")
  out.add_argument("--fps", type=_rate, help="frames per second written")
  out.add_argument(
    "--intermediates", action="store_true", help="write steps.png, too"
  )
  out.add_argument("--overwrite", action="store_true", help="replace outputs")
  method = out.add_argument_group("decoding (defaults: those of the run)")
  method.add_argument("--steps", type=int, help="passes of the transformer")
  method.add_argument("--guidance", type=float, help="0 is none")
  method.add_argument(
    "--guidance_power", type=float, help="how late guidance rises; 0 at once"
  )
  method.add_argument("--temperature", type=float, help="of the ids")
  method.add_argument("--choice_temperature", type=float, help="of the order")
  method.add_argument("--top_k", type=int, help="0 keeps all ids")
  method.add_argument("--top_p", type=float, help="1 keeps all ids")
  return out


def _box(text: str) -> tuple[int, ...]:
  box = tuple(map(int, text.split(",")))
  if len(box) != 4:
    raise ValueError
  return box


def _rate(text: str) -> Fraction:
  try:
    return Fraction(text)
  except ZeroDivisionError as error:
    raise argparse.ArgumentTypeError(f"{text} is no frame rate") from error


def _size(text: str) -> tuple[int, int]:
  width, height = map(int, text.split("x"))
  if width < 1 or height < 1:
    raise ValueError
  return width, height


def _check_outputs(args: argparse.Namespace) -> None:
  """Refuses what would be lost or cannot be written, before the work."""
  if args.num < 1:
    raise ValueError(f"--num is {args.num}; it must be at least 1")
  if args.fps is not None and args.fps <= 0:
    raise ValueError(f"--fps is {args.fps}; it must be above 0")
  seed_key(args.seed)
  out = paths.as_path(args.out)
  if out.exists() and not out.is_dir():
    raise NotADirectoryError(f"--out={out} is a file; give a folder")
  patterns = [f"{k:03d}{end}" for k in range(args.num) for end in ENDS]
  targets = (path for p in patterns for path in out.glob(p))
  pictures = (p for name in PICTURES for p in out.glob(name))
  there = next(targets, None) or next(pictures, None)
  if there and not args.overwrite:
    raise FileExistsError(
      f"{there} exists and stays as it is; give another --out, or --overwrite"
    )
  if paths.is_remote(out):
    return
  parent = next(
    path for path in (out, *out.absolute().parents) if path.exists()
  )
  if not paths.is_open(parent):
    raise PermissionError(
      f"--out={out} cannot be written: no permission in the folder {parent}"
    )


def _flags(kind: str) -> tuple[str, ...]:
  """The flags that a kind of task reads."""
  names = {"video": ("input",) if kind == "outpaint" else ("input", "fit")}
  inputs = edit_tasks.INPUTS[kind]
  return tuple(flag for name in inputs for flag in names.get(name, (name,)))


def _check_flags(kind: str, args: argparse.Namespace) -> None:
  """Refuses flags that the task does not read, and asks for its input."""
  read = _flags(kind)
  unread = [
    f"--{flag}"
    for flag in FLAGS
    if flag not in read and getattr(args, flag) not in (None, False)
  ]
  if unread:
    raise ValueError(
      f"--task={args.task} does not read {' and '.join(unread)}; leave them "
      f"out (it reads {', '.join(f'--{flag}' for flag in read)})"
    )
  if "input" in read and args.input is None:
    raise ValueError(
      f"--task={args.task} is given a clip; name it with --input=clip.mp4"
    )


def _job(gen: Any, kind: str, args: argparse.Namespace) -> Job:
  """Reads what there is to read and checks what can be checked."""
  rows, clip, info = [], None, None
  mask = None
  if kind != "sample":
    clip, info = _read(gen, kind, args)
  if args.mask:
    mask = sample_inputs.read_mask(args.mask, info, gen.shape, args.fit)
  prompt = edit_tasks.prompt(
    gen.model,
    args.task,
    clip,
    labelled=args.label is not None,
    given=args.given,
    mask=mask,
    box=args.box,
  )
  given = prompts.prefix(prompt.tables)
  if clip is not None and clip.shape == gen.shape:
    rows.append(_row("input", clip, given))
  if info and not given:
    filled = transforms.to_uint8(prompts.filled(prompt)[0])
    rows.append(_row("given", filled))
  labels = gen.label_numbers(args.label, args.num, prompt.task)
  if kind == "sample" and args.label is None:
    labels = np.arange(args.num, dtype=np.int32) % len(gen.labels)
  return Job(
    prompt,
    labels,
    long_video.check(gen, args.frames, given),
    given,
    rows,
    Fraction(args.fps or (info.fps if info else FPS)),
    paths.as_path(args.input).name if info else args.task,
  )


def _read(
  gen: Any, kind: str, args: argparse.Namespace
) -> tuple[np.ndarray, video_io.Info]:
  """What a kind of task reads of --input, and what its file holds."""
  path, shape = args.input, gen.shape
  if kind == "outpaint":
    return sample_inputs.read_inner(path, shape, args.size)
  frames = edit_tasks.frames_needed(gen.model, args.task, args.given)
  if kind == "interpolate":
    return sample_inputs.read_ends(path, shape, frames // 2, args.fit)
  return sample_inputs.read_start(path, shape, frames, args.fit)


def _row(name: str, video: np.ndarray, given: int = 0) -> sheets.Row:
  """A row of frames spread over a video, `given` of which are marked."""
  picks = sheets.chosen(len(video), COLUMNS)
  marked = sum(pick < given for pick in picks)
  return sheets.Row(name, video[picks], marked)


def _write(gen: Any, job: Job, args: argparse.Namespace) -> list[sheets.Row]:
  """Writes videos and ids as they are made; the samples' rows of the sheet."""
  out = paths.as_path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  pieces = gen.stream(
    job.prompt, job.labels, frames=job.frames, seed=args.seed, **_method(args)
  )
  stems = [f"{k:03d}" for k in range(args.num)]
  picks, shown, made = sheets.chosen(job.frames, COLUMNS), [], 0
  with contextlib.ExitStack() as stack:
    files = [
      stack.enter_context(video_write.opened(out / f"{stem}.mp4", job.fps))
      for stem in stems
    ]
    for number, piece in enumerate(pieces):
      videos = transforms.to_uint8(piece.video)
      for file, video in zip(files, videos, strict=True):
        for frame in video:
          file.add(frame)
      chunk = f"-{number:02d}" if job.frames > gen.shape[0] else ""
      for stem, ids in zip(stems, piece.ids, strict=True):
        token_file.write(out / f"{stem}{chunk}.npz", ids, _meta(gen, job))
      here = [p - made for p in picks if made <= p < made + videos.shape[1]]
      shown.append(videos[:, here])
      made += videos.shape[1]
  marked = sum(pick < job.given for pick in picks)
  named = [gen.labels[n] if n < len(gen.labels) else "" for n in job.labels]
  return [
    sheets.Row(f"{stem} {name}".strip(), video, marked)
    for stem, name, video in zip(
      stems, named, np.concatenate(shown, axis=1), strict=True
    )
  ]


def _write_steps(gen: Any, job: Job, args: argparse.Namespace) -> None:
  """How the (first chunk of the) first sample came about, a row per step."""
  trace = gen.trace(job.prompt, job.labels[:1], seed=args.seed, **_method(args))
  videos = transforms.to_uint8(gen.decode(trace.ids[0]))
  rows = steps.rows(videos, trace.unknown[0])
  sheet = sheets.contact_sheet(rows, COLUMNS)
  _save(sheet, args, "steps.png")


def _save(sheet: Any, args: argparse.Namespace, name: str) -> None:
  """Writes a picture into --out."""
  with paths.writing(paths.as_path(args.out) / name) as part:
    sheet.save(part)


def _method(args: argparse.Namespace) -> dict[str, Any]:
  """What of the decoding is changed."""
  return {k: v for k in METHOD if (v := getattr(args, k)) is not None}


def _meta(gen: Any, job: Job) -> token_file.Meta:
  t, h, w, _ = gen.shape
  return token_file.Meta(
    frames=min(t, job.frames),
    height=h,
    width=w,
    pad=(0, 0, 0),
    fps=str(job.fps),
    strides=gen.tokenizer.strides,
    sizes=gen.tokenizer.sizes,
    fingerprint=gen.tokenizer.fingerprint,
    source=job.source,
  )
