"""A video tokenizer from scratch, and from the weights of an image tokenizer.

  python benchmarks/inflation.py
  python benchmarks/inflation.py --how=central --image_steps=300 --steps=100

Trains an image tokenizer on single frames of moving digits, then two video
tokenizers of the same width on clips of them, for as many steps from the same
seed: one initialised, one inflated. Prints the PSNR of both on held-out clips
after each quarter. `last` is of a causal net (MAGVIT-v2),
`central` and `average` are of one that is not (MAGVIT).
"""

import argparse
import json
import pathlib
import tempfile

from magvit_jax import run_config
from magvit_jax.training import loop

NETS = {
  "last": dict(name="causal3d", down="conv", up="depth", pad="replicate"),
  "central": dict(name="cnn3d"),
  "average": dict(name="cnn3d"),
}


def config(how: str, steps: int, image: bool):
  """A tokenizer of 16x16 digits with 4x4 pixels per token."""
  cfg = run_config.load_config("tokenizer/moving_digits")
  time = 1 if image else 2
  del cfg.stage.backbone
  cfg.stage.backbone = dict(
    width=16,
    multipliers=(1, 2, 2),
    blocks=1,
    strides=((1, 2, 2), (time, 2, 2)),
    kernel=(1 if image else 3, 3, 3),
    **NETS[how],
  )
  cfg.steps, cfg.data.size = steps, (16, 16)
  cfg.data.frames = 1 if image else 8 + (how == "last")
  cfg.stage.optim.warmup = steps // 20
  cfg.stage.ema = dict(decay=0.0, warmup=False)
  cfg.eval.metrics = dict(psnr={})
  cfg.eval.every = cfg.checkpoint.every = max(steps // 4, 1)
  return cfg


def curve(workdir: pathlib.Path) -> dict[int, float]:
  """Held-out PSNR by step."""
  rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {r["step"]: r["eval_psnr"] for r in rows if r["kind"] == "eval"}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--how", choices=sorted(NETS), default="last")
  parser.add_argument("--image_steps", type=int, default=400)
  parser.add_argument("--steps", type=int, default=200)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    loop.run(config(args.how, args.image_steps, image=True), root / "image")
    curves = {}
    for name in ("scratch", "inflated"):
      cfg = config(args.how, args.steps, image=False)
      if name == "inflated":
        cfg.init_from, cfg.inflate = str(root / "image"), args.how
      loop.run(cfg, root / name)
      curves[name] = curve(root / name)
  print(f"held-out PSNR, how={args.how}")
  for name, values in curves.items():
    shown = "  ".join(f"step {k}: {v:.2f}" for k, v in values.items())
    print(f"{name:>9}  {shown}")


if __name__ == "__main__":
  main()
