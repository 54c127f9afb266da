"""Tokens of a backbone computed in bfloat16 against those of float32.

  python benchmarks/bf16_bits.py runs/quickstart/tokenizer
  python benchmarks/bf16_bits.py tokenizer/ucf101:B,magvit2 --clips=1

A workdir stands for its trained weights and its held-out clips, a config for
random weights and crops of the bundled clips. Quantization is float32 in both;
what differs are the latents that reach it. Printed are the share of ids that
differ (per factor), that of their bits, the error of the latents over their
standard deviation, and PSNR: of either reconstruction to the clip, and of the
two to each other.
"""

import argparse
import os
import sys

from magvit_jax import registry
from magvit_jax.files import bit_packing

DTYPES = ("float32", "bfloat16")


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("source", help="workdir of a tokenizer, or a config")
  parser.add_argument("--clips", type=int, default=32)
  parser.add_argument("--frames", type=int, default=17, help="with a config")
  parser.add_argument("--size", type=int, default=64, help="with a config")
  args = parser.parse_args()
  trained = os.path.isdir(args.source)
  stage, params, source = opened(args) if trained else drawn(args)
  totals, done = {}, min(args.clips, len(source))
  passes = {dtype: program(stage, dtype) for dtype in DTYPES}
  width = sum(map(bit_packing.width, quantizer_sizes(stage)))
  for index in range(done):
    found = compare(passes, width, params, clip(source, index))
    for name, value in found.items():
      totals[name] = totals.get(name, 0.0) + value / done
  shape = "x".join(map(str, source.shape[:3]))
  print(f"{args.source}: mean of {done} clips of {shape}")
  for name, value in totals.items():
    print(f"  {name:<34} {value:.5g}")
  return 0


def quantizer_sizes(stage) -> tuple[int, ...]:
  """Ids per factor."""
  return registry.build("quantizers", stage["quantizer"]).sizes


def opened(args: argparse.Namespace):
  """(stage config, params, source) of a run."""
  from magvit_jax.checkpoints import trained_run

  run = trained_run.open_run(args.source)
  return run.config["stage"], run.state.ema, run.source


def drawn(args: argparse.Namespace):
  """(stage config, random params, crops of the bundled clips)."""
  import jax
  import jax.numpy as jnp

  from magvit_jax import run_config, tokenizers

  stage = registry.plain(run_config.load_config(args.source).stage)
  data = registry.plain(run_config.load_config("tokenizer/clips").data)
  data |= dict(frames=args.frames, size=(args.size,) * 2)
  source = registry.build("data", data, split="eval")
  tokenizer = tokenizers.build_tokenizer(stage)
  st, sh, sw = tokenizer.strides
  video = jnp.zeros((1, st + tokenizer.backbone.causal, sh, sw, 3))
  params = jax.jit(tokenizer.init)(jax.random.key(0), video).get("params", {})
  return stage, params, source


def clip(source, index: int):
  """float32 [1 t h w 3] in [-1, 1]."""
  import numpy as np

  from magvit_jax.inference import video_codec

  video = source.clip(index, np.random.default_rng(index))["video"]
  return video_codec.to_float(video[None])


def program(stage, dtype: str):
  """Jitted (params, video) -> (latents, ids, reconstruction)."""
  import jax

  from magvit_jax import tokenizers

  tokenizer = tokenizers.build_tokenizer({**stage, "dtype": dtype})

  def run(tokenizer, video):
    latents = tokenizer.backbone.encode(video)
    quantized = tokenizer.quantizer(latents)
    recon = tokenizer.backbone.decode(quantized.codes)
    return latents, quantized.ids, recon.clip(-1, 1)

  return jax.jit(lambda p, v: tokenizer.apply({"params": p}, v, method=run))


def compare(passes, width, params, video) -> dict[str, float]:
  """The figures of one clip, by what they are; `width` bits a position."""
  import numpy as np

  (z, ids, recon), (low_z, low_ids, low_recon) = (
    tuple(map(np.asarray, passes[dtype](params, video))) for dtype in DTYPES
  )
  flipped = np.bitwise_count(ids ^ low_ids).sum()
  return {
    "ids that differ, share": (ids != low_ids).mean(),
    "bits that differ, share": flipped / (ids[..., 0].size * width),
    "latent error / std": np.sqrt(np.mean((z - low_z) ** 2)) / z.std(),
    "PSNR float32, dB": psnr(recon, video),
    "PSNR bfloat16, dB": psnr(low_recon, video),
    "PSNR of one to the other, dB": psnr(recon, low_recon),
  }


def psnr(a, b) -> float:
  """Of pixels in [-1, 1]."""
  import numpy as np

  return float(10 * np.log10(4 / np.mean((a - np.asarray(b)) ** 2)))


if __name__ == "__main__":
  sys.exit(main())
