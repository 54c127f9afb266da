"""Digits: does a classifier know generated ones, and are futures predicted?

  python benchmarks/digits.py --workdir=runs/digits/generator

A linear classifier on single frames, cut out around the digit, shrunk to 8x8
pixels and brought to unit length, is trained on real clips of the training
split; a clip gets the class with the highest mean log-probability over its
frames. Its accuracy on
samples by class, with their labels as the truth, stands beside that on the
tokenizer's reconstructions of held-out clips. Futures of held-out clips stand
beside repeating the last given frame. Exits with 1 if a target is missed: a
ratio of 0.9, of reconstructions that the classifier knows at all (at chance
the ratio would be 1), and more PSNR than repeating.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import PIL.Image
import sklearn.linear_model

from magvit_jax import registry
from magvit_jax.data import transforms
from magvit_jax.files import workdirs
from magvit_jax.inference import sampler
from magvit_jax.metrics import averages

RATIO = 0.9
LEAST = 0.5  # accuracy on reconstructions; chance is 0.1
SIDE = 8  # pixels that the classifier sees of a digit


def main() -> int:
  """Prints the figures; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True, help="run of the generator")
  parser.add_argument("--train", type=int, default=2000, help="real clips")
  parser.add_argument("--num", type=int, default=200, help="samples and clips")
  parser.add_argument("--steps", type=int, help="of decoding")
  parser.add_argument("--guidance", type=float)
  parser.add_argument("--temperature", type=float)
  parser.add_argument("--choice_temperature", type=float)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  names = ("steps", "guidance", "temperature", "choice_temperature")
  method = {k: v for k in names if (v := getattr(args, k)) is not None}
  gen = sampler.load_generator(args.workdir)
  data = registry.plain(workdirs.read_config(args.workdir)["config"]["data"])
  if data["name"] != "moving_digits":
    raise ValueError(
      f"{args.workdir} was trained on {data['name']}; this needs moving_digits"
    )
  train = registry.build("data", data, split="train")
  held = registry.build("data", {**data, "eval_clips": args.num}, split="eval")
  model = Classifier(*clips(train, args.train), train.side)
  real, labels = clips(held, args.num)
  recon = np.stack([transforms.to_uint8(gen.reconstruct(v)) for v in real])
  wanted = np.arange(args.num) % len(gen.labels)
  made = transforms.to_uint8(
    gen.sample(wanted, num=args.num, seed=args.seed, **method)
  )
  scores = {
    "real held-out clips": model.accuracy(real, labels),
    "reconstructions": model.accuracy(recon, labels),
    "samples by class": model.accuracy(made, wanted),
  }
  for name, score in scores.items():
    print(f"accuracy on {name:<24} {score:.3f}")
  ceiling = scores["reconstructions"]
  ratio = scores["samples by class"] / max(ceiling, 1e-9)
  print(f"samples / reconstructions            {ratio:.3f}  target >= {RATIO}")
  known = ceiling >= LEAST
  if not known:
    print(f"  but reconstructions are below {LEAST}: the ratio means nothing")
  better = futures(gen, real, args.seed, method)
  return int(not (known and ratio >= RATIO and better))


class Classifier:
  """Logistic regression on what is cut out of single frames."""

  def __init__(self, videos: Sequence[np.ndarray], labels: np.ndarray, side):
    self.half = side // 2 + 1
    # Cuts off the centre make it forgive a reconstruction's small errors.
    rng = np.random.default_rng(0)
    seen = [
      cut_out(f, self.half, rng.normal(0, 0.7, 2))
      for video in videos
      for f in video[::4]
    ]
    self.model = sklearn.linear_model.LogisticRegression(max_iter=500, C=10)
    self.model.fit(np.stack(seen), np.repeat(labels, len(videos[0][::4])))

  def accuracy(self, videos: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """Share of videos whose most probable class over all frames is theirs."""
    right = 0
    for video, label in zip(videos, labels, strict=True):
      seen = np.stack([cut_out(frame, self.half) for frame in video])
      scores = self.model.predict_log_proba(seen).mean(0)
      right += self.model.classes_[scores.argmax()] == label
    return right / len(labels)


def cut_out(
  frame: np.ndarray, half: int, off: np.ndarray | float = 0.0
) -> np.ndarray:
  """float32 [SIDE * SIDE] of length 1: the square around the digit.

  Args:
    frame: uint8 [h w 3] with one digit.
    half: half the side of the square.
    off: pixels from the centre of brightness to that of the square.
  """
  grey = frame.astype(np.float32).mean(-1)
  places = np.indices(grey.shape)
  centre = (grey * places).sum((1, 2)) / max(grey.sum(), 1e-6) + off
  top, left = np.rint(centre + 0.5).astype(int) + half
  wide = np.pad(grey, 2 * half)
  cut = wide[top : top + 2 * half, left : left + 2 * half]
  small = PIL.Image.fromarray(cut).resize(
    (SIDE, SIDE), PIL.Image.Resampling.BOX
  )
  flat = np.asarray(small).ravel()
  return flat / max(np.linalg.norm(flat), 1e-6)


def clips(source, count: int) -> tuple[list[np.ndarray], np.ndarray]:
  """`count` clips, uint8 [t h w 3] each, and their labels int [count]."""
  found = [
    source.clip(k % len(source), np.random.default_rng((1, k)))
    for k in range(count)
  ]
  return [c["video"] for c in found], np.array([c["label"] for c in found])


def futures(gen, videos, seed: int, method) -> bool:
  """Prints the PSNR of predicted frames; whether it beats repeating."""
  given = next(iter(gen.given_frames()))
  videos = videos[:50]
  real = np.stack([transforms.to_float(video) for video in videos])
  made = np.stack(
    [
      gen.predict(video, given=given, seed=seed + k, **method)[0]
      for k, video in enumerate(videos)
    ]
  )
  repeat = np.repeat(real[:, given - 1 : given], real.shape[1], axis=1)
  psnr = {
    name: float(
      np.mean(averages.psnr_per_frame(real[:, given:], other[:, given:]))
    )
    for name, other in (("predicted", made), ("repeating", repeat))
  }
  print(
    f"PSNR from {given} of {real.shape[1]} frames: predicted "
    f"{psnr['predicted']:.2f} dB, repeating the last {psnr['repeating']:.2f} dB"
  )
  return psnr["predicted"] > psnr["repeating"]


if __name__ == "__main__":
  sys.exit(main())
