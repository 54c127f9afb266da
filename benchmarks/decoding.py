"""Time of decoding against one forward pass, batch 1, without guidance.

  python benchmarks/decoding.py
  python benchmarks/decoding.py --grid=5,16,16 --repeats=3

Builds transformers/modern of about 80 M parameters with random weights (time
does not depend on them), times one forward pass and one decode of 12 steps in
turn, and prints the ratio of the medians. Exits with 1 if it is above 12.5;
asserts that each compiled once.
"""

import argparse
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from magvit_jax import transformers
from magvit_jax.decoding.maskgit import MaskGIT
from magvit_jax.generators import masked
from magvit_jax.tasks import TokenCondition

ALLOWED = 12.5
SIZES = (512, 512)
TRANSFORMER = dict(name="modern", layers=12, width=768, heads=12, hidden=2048)


def main() -> int:
  """Prints the times; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--grid", default="3,8,8")
  parser.add_argument("--steps", type=int, default=12)
  parser.add_argument("--repeats", type=int, default=5)
  args = parser.parse_args()
  grid = tuple(int(n) for n in args.grid.split(","))
  shared = dict(sizes=SIZES, classes=10, tasks=2)
  gen = masked.make(
    grid=grid, transformer=TRANSFORMER, condition="hard", **shared
  )
  model = transformers.build_model(
    TRANSFORMER, dtype=jnp.dtype("float32"), **shared
  )
  ids = jnp.zeros((1, *grid, len(SIZES)), jnp.int32)
  none = jnp.zeros((1,), jnp.int32)
  cond = TokenCondition(ids, jnp.zeros((1, *grid), bool), none, none)
  params = jax.jit(gen.init)(jax.random.key(0), ids, cond)
  count = sum(p.size for p in jax.tree.leaves(params))
  print(f"{count / 1e6:.1f} M parameters, {grid} tokens of {SIZES} ids")
  method = MaskGIT(steps=args.steps)
  forward = jax.jit(lambda p, x: model.apply({"params": p}, x, none, none))
  sample = jax.jit(lambda p, key: gen.sample(p, cond, key, method))
  runs = {
    "forward": lambda i: forward(params, ids + i),
    "decode": lambda i: sample(params, jax.random.key(i)),
  }
  ratio = compare(runs, args.repeats)
  compiled = (forward._cache_size(), sample._cache_size())
  assert compiled == (1, 1), f"compiled {compiled} times, not once each"
  print(f"{args.steps} steps take {ratio:.2f} forward passes, one compile each")
  return int(ratio > ALLOWED)


def compare(runs, repeats: int) -> float:
  """Medians in turn, so that a busy machine slows both alike; their ratio."""
  times = {name: [] for name in runs}
  for run in runs.values():
    jax.block_until_ready(run(0))
  for i in range(1, repeats + 1):
    for name, run in runs.items():
      begin = time.perf_counter()
      jax.block_until_ready(run(i))
      times[name].append(time.perf_counter() - begin)
  middle = {name: statistics.median(t) for name, t in times.items()}
  for name, seconds in middle.items():
    print(f"{name:>8} {seconds * 1e3:9.1f} ms")
  return middle["decode"] / middle["forward"]


if __name__ == "__main__":
  sys.exit(main())
