"""Memory of the chunked encode pass for clips of growing length.

  python benchmarks/memory.py
  python benchmarks/memory.py --config=tokenizer/bair:magvit2 --width=16

Each length runs in a process of its own: it compiles on 33 frames, resets the
kernel's peak counter (Linux), then encodes frames that are made as they are
needed. Printed are that peak of resident memory, the bytes of the compiled
program of a later piece (arguments, results and temporaries) and those of its
carry; beside them those of the program that takes the clip in one piece, which
is compiled and not run. Exits with 1 if the longest clip needs over 5 % more
resident memory than the shortest. Weights are random, which memory does not
depend on.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ALLOWED = 1.05
COLUMNS = ("resident", "program", "carry", "in one piece")


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="tokenizer/clips")
  parser.add_argument("--frames", default="17,257,4097")
  parser.add_argument("--size", type=int, default=64)
  parser.add_argument("--width", type=int, help="of the backbone")
  parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(json.dumps(measure(args.config, args.size, args.width, args.child)))
    return 0
  lengths = [int(n) for n in args.frames.split(",")]
  print("MiB" + "".join(f"{name:>14}" for name in COLUMNS))
  peaks = []
  for n in lengths:
    found = child(args, n)
    peaks.append(found["resident"])
    cells = "".join(f"{found[name] / 2**20:>14.2f}" for name in COLUMNS)
    print(f"{n:>5} {cells[2:]}", flush=True)
  ratio = peaks[-1] / peaks[0]
  print(f"{lengths[-1]} frames need {ratio:.3f} of what {lengths[0]} need")
  return int(ratio > ALLOWED)


def child(args: argparse.Namespace, frames: int) -> dict[str, int]:
  """What `measure` gives in a process of its own."""
  command = [sys.executable, __file__, f"--config={args.config}"]
  command += [f"--size={args.size}", f"--child={frames}"]
  command += [f"--width={args.width}"] if args.width else []
  out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  return json.loads(out.stdout.splitlines()[-1])


def measure(
  config: str, size: int, width: int | None, frames: int
) -> dict[str, int]:
  """Encodes `frames` frames of size x size; bytes for each of COLUMNS."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from magvit_jax import run_config, tokenizers
  from magvit_jax.inference import video_codec

  stage = run_config.load_config(config).stage
  if width:
    stage.backbone.width = width
  tokenizer = tokenizers.build_tokenizer(stage)
  st, sh, sw = tokenizer.strides
  params = jax.jit(tokenizer.init)(
    jax.random.key(0), jnp.zeros((1, 1 + st, sh, sw, 3))
  )["params"]
  codec = video_codec.Codec(tokenizer, params)

  def pictures(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
      yield rng.integers(0, 256, (1, 1, size, size, 3), dtype=np.uint8)

  def encode(carry, count):
    video = jax.ShapeDtypeStruct((1, count, size, size, 3), jnp.uint8)
    return jax.jit(
      lambda p, c, v: tokenizer.apply(
        {"params": p}, c, video_codec.to_float(v), method=tokenizer.encode_chunk
      )
    ).lower(params, carry, video)

  piece = video_codec.LATENTS_PER_PIECE * st
  carry = encode(None, 1 + piece).out_info[0]
  found = {
    "program": program_bytes(encode(carry, piece)),
    "carry": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry)),
    "in one piece": program_bytes(encode(None, frames)),
  }
  for _ in codec.encode_stream(pictures(33)):
    pass
  reset_peak()
  for _ in codec.encode_stream(pictures(frames)):
    pass
  return {"resident": read_peak(), **found}


def program_bytes(lowered) -> int:
  """Arguments, results and temporaries of a program, compiled for this."""
  sizes = lowered.compile().memory_analysis()
  return (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    + sizes.temp_size_in_bytes
  )


def reset_peak() -> None:
  """Sets the kernel's peak of resident memory to the present value."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")


def read_peak() -> int:
  """Peak resident bytes since `reset_peak`."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM:"):
      return int(line.split()[1]) * 1024
  raise OSError("/proc/self/status has no VmHWM; this needs Linux")


if __name__ == "__main__":
  sys.exit(main())
