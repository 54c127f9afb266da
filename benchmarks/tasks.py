"""Every task of a generator on held-out clips: figures, and a contact sheet.

  python benchmarks/tasks.py --workdir=runs/digits/ten --sheet=docs/tasks.png

PSNR of the pixels that a task does not give: of what was made, beside the
padding that the condition clip has there and the tokenizer's reconstruction.
Tasks by class alone are left out of the figures, as they have no one answer.
The sheet shows two rows of each task: what is given, grey where nothing is,
and what was made. The clip is the same for all, and the first sample is shown,
never the best.
"""

import argparse

import numpy as np

from magvit_jax import registry
from magvit_jax.data import transforms
from magvit_jax.files import workdirs
from magvit_jax.inference import prompts, sampler
from magvit_jax.report import sheets

GREY = 110
FRAMES = 9  # of a row


def main() -> None:
  """Prints the figures and writes the sheet."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True, help="run of the generator")
  parser.add_argument("--clips", type=int, default=32, help="held-out clips")
  parser.add_argument("--shown", type=int, default=0, help="clip of the sheet")
  parser.add_argument("--sheet", help="picture to write")
  args = parser.parse_args()
  gen = sampler.load_generator(args.workdir)
  data = registry.plain(workdirs.read_config(args.workdir)["config"]["data"])
  source = registry.build("data", data, split="eval")
  held = [
    source.clip(k, np.random.default_rng((0, k))) for k in range(args.clips)
  ]
  videos = np.stack([clip["video"] for clip in held])
  labels = np.array([clip["label"] for clip in held], np.int32)
  recons = np.stack([transforms.to_uint8(gen.reconstruct(v)) for v in videos])
  rows = [sheets.Row("the clip", videos[args.shown])]
  print(f"{'task':<30}{'made':>8}{'padding':>9}{'ceiling':>9}  dB")
  for name, own in gen.tasks.items():
    made, filled = complete(gen, name, videos, labels)
    if own.seen.any():
      hidden = np.broadcast_to(~own.seen, videos.shape[:4])
      figures = [psnr(videos, x, hidden) for x in (made, filled, recons)]
      print(f"{name:<30}{figures[0]:>8.2f}{figures[1]:>9.2f}{figures[2]:>9.2f}")
    given = np.where(own.seen[..., None], videos[args.shown], GREY)
    rows += [
      sheets.Row(f"{name}: given", given.astype(np.uint8)),
      sheets.Row("made", made[args.shown]),
    ]
  if args.sheet:
    sheets.contact_sheet(rows, FRAMES).save(args.sheet)


def complete(
  gen: sampler.Sampler, name: str, videos: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What a task makes of clips, and its condition clips: uint8 [n t h w 3]."""
  floats = np.stack([transforms.to_float(video) for video in videos])
  prompt = prompts.Prompt(name, gen.tasks[name], floats)
  made = gen.decode(gen.complete(prompt, labels))
  return transforms.to_uint8(made), transforms.to_uint8(prompts.filled(prompt))


def psnr(video: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
  """dB over the pixels bool [n t h w] of all clips together."""
  error = (video.astype(np.float32) - other.astype(np.float32)) / 255
  return float(-10 * np.log10(np.mean(np.square(error)[where])))


if __name__ == "__main__":
  main()
