"""Peak memory of the chunked encode pass for clips of growing length.

  python benchmarks/memory.py
  python benchmarks/memory.py --config=tokenizer/clips --frames=17,257,1025

Each length runs in a process of its own: it compiles on 33 frames, resets the
kernel's peak counter (Linux), then encodes frames that are made as they are
needed. Beside it stands the same clip in one piece. Exits with 1 if the
longest clip needs over 5 % more than the shortest. Weights are random, which
memory does not depend on.
"""

import argparse
import pathlib
import subprocess
import sys

ALLOWED = 1.05


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="tokenizer/clips")
  parser.add_argument("--frames", default="17,257,1025")
  parser.add_argument("--size", type=int, default=64)
  parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(measure(args.config, args.size, int(args.child[0]), args.child[1]))
    return 0
  lengths = [int(n) for n in args.frames.split(",")]
  print(f"{'frames':>7} {'chunked MiB':>12} {'one piece MiB':>14}")
  peaks = []
  for n in lengths:
    chunked, whole = (peak(args, n, kind) for kind in ("chunked", "whole"))
    peaks.append(chunked)
    print(f"{n:>7} {chunked:>12.0f} {whole:>14.0f}", flush=True)
  ratio = peaks[-1] / peaks[0]
  print(f"{lengths[-1]} frames need {ratio:.3f} of what {lengths[0]} need")
  return int(ratio > ALLOWED)


def peak(args: argparse.Namespace, frames: int, kind: str) -> float:
  """Peak resident MiB of one pass, in a process of its own."""
  command = [sys.executable, __file__, f"--config={args.config}"]
  command += [f"--size={args.size}", "--child", str(frames), kind]
  out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  return float(out.stdout.split()[-1])


def measure(config: str, size: int, frames: int, kind: str) -> float:
  """Encodes `frames` frames; the peak of resident memory in MiB."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from magvit_jax import api, tokenizers
  from magvit_jax.cli import train

  tokenizer = tokenizers.build_tokenizer(train.load_config(config).stage)
  st, sh, sw = tokenizer.strides
  video = jnp.zeros((1, 1 + st, sh, sw, 3))
  params = jax.jit(tokenizer.init)(jax.random.key(0), video)["params"]
  codec = api.Codec(tokenizer, params)

  def pictures(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
      yield rng.integers(0, 256, (1, 1, size, size, 3), dtype=np.uint8)

  if kind == "chunked":
    for _ in codec.encode_stream(pictures(33)):
      pass
    reset_peak()
    for _ in codec.encode_stream(pictures(frames)):
      pass
  else:
    whole = np.concatenate(list(pictures(frames)), axis=1)
    encode = jax.jit(
      lambda p, v: tokenizer.apply(
        {"params": p}, api.to_float(v), method=tokenizer.encode
      )
    )
    run = encode.lower(params, whole).compile()
    reset_peak()
    jax.block_until_ready(run(params, whole))
  return read_peak()


def reset_peak() -> None:
  """Sets the kernel's peak of resident memory to the present value."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")


def read_peak() -> float:
  """Peak resident MiB since `reset_peak`."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM:"):
      return int(line.split()[1]) / 1024
  raise OSError("/proc/self/status has no VmHWM; this needs Linux")


if __name__ == "__main__":
  sys.exit(main())
