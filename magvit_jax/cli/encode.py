"""Turns a video, or the clips a tokenizer was trained on, into tokens.

  python -m magvit_jax encode --workdir=runs/quickstart/tokenizer in.mp4 out.npz
  python -m magvit_jax encode --workdir=runs/quickstart/tokenizer \\
    --split=train --clips=4096 train.npz

A video may have any length and size: it is read, encoded and forgotten piece
by piece; only the tokens stay in memory. Sizes that the tokenizer's grid does
not divide are padded, and the file says by how much. An image counts as a
video of one frame.

With --split, the clips of the run's own data become one file of records, which
a generator can be trained on in place of pixels (data token_records). Tasks
whose condition clips have ids of their own need those too: --tasks=CONFIG names
the config of the generator, such as generator/bair_mt8.
"""

import argparse
import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry, run_config, tokenizers
from magvit_jax.checkpoints import checksum, trained_run
from magvit_jax.cli import _codec_flags as codec_flags
from magvit_jax.data import token_records, video_io
from magvit_jax.files import paths, token_file
from magvit_jax.inference import video_codec
from magvit_jax.stages import _generator_model
from magvit_jax.tasks import tables as task_tables
from magvit_jax.training import evaluation

_BATCH = 16  # clips of a split that are encoded at a time


def main(argv: list[str]) -> int:
  """Runs the verb with its arguments; returns the exit code."""
  parser = _parser()
  args = parser.parse_args(argv)
  if len(args.paths) != (1 if args.split else 2):
    parser.error(
      "give INPUT and OUTPUT, or with --split only OUTPUT; there are "
      f"{len(args.paths)} paths"
    )
  if args.clips is not None and (args.clips < 1 or not args.split):
    parser.error("--clips counts clips of a --split, at least 1")
  if args.tasks and not args.split:
    parser.error("--tasks says what the records of a --split hold")
  args.input, args.output = args.paths[0], args.paths[-1]
  _check_output(args)
  if args.split:
    return _encode_split(args)
  info = video_io.probe(args.input)
  if info.has_audio:
    print(
      f"note: {args.input} has sound; tokens hold pictures only, so the sound "
      "is not in the output",
      file=sys.stderr,
    )
  tok = video_codec.load_tokenizer(args.workdir, step=args.step, tile=args.tile)
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
  parser.add_argument(
    "--split",
    choices=("train", "eval"),
    help="encode clips of the run's own data instead of a video",
  )
  parser.add_argument(
    "--clips",
    type=int,
    help="clips of the split (default: its length; train draws each window "
    "anew)",
  )
  parser.add_argument(
    "--tasks",
    metavar="CONFIG",
    help="also encode the condition clips that the tasks of this generator "
    "config need",
  )
  parser.add_argument(
    "paths",
    nargs="+",
    metavar="PATH",
    help="video (or image) to read, unless --split is given; then the file of "
    "tokens to write, *.npz",
  )
  return parser


def _encode_split(args: argparse.Namespace) -> int:
  """Writes records of the data that the tokenizer's run names."""
  tasks = {}
  if args.tasks:
    tasks = registry.plain(run_config.load_config(args.tasks).stage).get(
      "tasks"
    )
    if not tasks:
      raise ValueError(
        f"--tasks={args.tasks} has no stage.tasks; give the config of a "
        "generator, such as generator/clips"
      )
  changes = {"eval_clips": args.clips} if args.clips else {}
  run = trained_run.open_run(
    args.workdir, split=args.split, step=args.step, **changes
  )
  source = run.source
  if args.split == "train":
    count = args.clips or len(source)
    picks = [k % len(source) for k in range(count)]
    source = evaluation.Picked(source, picks)
  records = _records(run, source, tasks)
  token_records.write(args.output, records)
  print(
    f"{args.output}: {len(records.ids)} {args.split} clips of "
    f"{len(records.files)} files, {'x'.join(map(str, records.ids.shape[1:]))} "
    f"ids each, {records.fingerprint}"
    + (f"; also under {', '.join(records.tasks)}" if records.tasks else "")
  )
  return 0


def _records(
  run: trained_run.Run, source: Any, tasks: Mapping[str, Any]
) -> token_records.Records:
  """Runs the tokenizer over every clip of `source` once."""
  sizes = tuple(run.stage.context["sizes"])
  if not sizes:
    raise ValueError(
      "the quantizer of this run is continuous, so it has no ids; encode "
      "needs a discrete one"
    )
  module = tokenizers.build_tokenizer(run.config["stage"])
  tables = (
    _generator_model.needs_of(module, tasks, source.shape) if tasks else {}
  )

  outputs = evaluation.predictions(
    jax.jit(functools.partial(_to_ids, run.stage, tuple(tables.values()))),
    run.state,
    source,
    batch=_BATCH,
    label="encoding",
  )
  parts = [jax.device_get(output) for output in outputs]
  valid = np.concatenate([part["valid"] for part in parts])
  ids, conditions, label, file = (
    np.concatenate([part[name] for part in parts])[valid]
    for name in ("ids", "conditions", "label", "file")
  )
  return token_records.Records(
    ids=ids,
    conditions=conditions,
    tasks={name: token_records.arguments(tasks[name]) for name in tables},
    label=label,
    file_index=file,
    labels=tuple(source.labels),
    files=tuple(source.files),
    shape=tuple(source.shape),
    sizes=sizes,
    fingerprint=checksum.fingerprint(run.state.ema),
  )


def _to_ids(stage: Any, tables: Sequence[Any], state: Any, batch: Any) -> dict:
  """The ids of a batch of clips, and of their condition clips [b K …]."""
  video, zeros = batch["video"], jnp.zeros_like(batch["label"])
  clips = [video]
  for own in tables:
    rows = task_tables.stack([own])
    clips.append(task_tables.condition(rows, zeros, video).video)

  # One after the other: only one batch of activations at a time.
  def encode(clip):
    return stage.programs["encode"](state, {**batch, "video": clip})["ids"]

  ids = jax.lax.map(encode, jnp.stack(clips))
  kept = {name: batch[name] for name in ("label", "file", "valid")}
  return {"ids": ids[0], "conditions": jnp.moveaxis(ids[1:], 0, 1), **kept}


def _check_output(args: argparse.Namespace) -> None:
  if paths.as_path(args.output).suffix != ".npz":
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
  _, sh, sw = tok.strides
  t, h, w = ids.shape[:3]
  return token_file.Meta(
    frames=frames,
    height=info.height,
    width=info.width,
    pad=(tok.frames(t) - frames, h * sh - info.height, w * sw - info.width),
    fps=str(info.fps),
    strides=tok.strides,
    sizes=tok.sizes,
    fingerprint=tok.fingerprint,
    source=paths.as_path(args.input).name,
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
