"""Speed and memory of LFQ's exact entropy of 18 bits, forward and backward.

  pip install '.[parity]' && python benchmarks/lfq_speed.py

Ours runs on 1,280 x 16 latents; its memory is what the compiled program needs
beside its inputs. The peer is vector-quantize-pytorch, which makes the
distribution over all 2^18 codes of every latent: it gets 2,048 latents (some
15 GB) in a process of its own, one after the other on the same cores. Exits
with 1 over 300 MB, or under 40 times the peer's speed per latent.
"""

import argparse
import subprocess
import sys
import time

BITS = 18
MOST_MB, LEAST_RATIO = 300, 40


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--latents", type=int, default=1280 * 16)
  parser.add_argument("--peer-latents", type=int, default=2048)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--child", choices=("ours", "peer"))
  args = parser.parse_args()
  if args.child:
    print(*{"ours": ours, "peer": peer}[args.child](args))
    return 0
  seconds, megabytes = child("ours")
  (peer_seconds,) = child("peer")
  ratio = (peer_seconds / args.peer_latents) / (seconds / args.latents)
  print(f"{'':10} {'latents':>8} {'seconds':>9} {'us/latent':>10}")
  for name, n, s in [
    ("magvit_jax", args.latents, seconds),
    ("peer", args.peer_latents, peer_seconds),
  ]:
    print(f"{name:10} {n:>8} {s:>9.3f} {1e6 * s / n:>10.2f}")
  print(f"memory over the inputs {megabytes:.0f} MB; {ratio:.0f}x per latent")
  return int(megabytes > MOST_MB or ratio < LEAST_RATIO)


def child(name: str) -> list[float]:
  """The numbers of one side, from a process of its own."""
  command = [sys.executable, __file__, *sys.argv[1:], f"--child={name}"]
  out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  return [float(word) for word in out.stdout.split()]


def best(run, repeats: int) -> float:
  """Least seconds of `repeats` calls after one that does not count."""
  run()
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return min(times)


def ours(args: argparse.Namespace) -> tuple[float, float]:
  """(seconds, megabytes over the inputs) of magvit_jax."""
  import jax

  from magvit_jax.quantizers import lfq

  module = lfq.Quantizer(bits=BITS)
  z = jax.random.normal(jax.random.key(0), (args.latents, BITS))

  def loss(z):
    return module.apply({}, z).aux["loss_entropy"]

  step = jax.jit(jax.value_and_grad(loss)).lower(z).compile()
  memory = step.memory_analysis()
  extra = memory.temp_size_in_bytes + memory.output_size_in_bytes
  seconds = best(lambda: jax.block_until_ready(step(z)), args.repeats)
  return seconds, extra / 1e6


def peer(args: argparse.Namespace) -> tuple[float]:
  """(seconds,) of vector-quantize-pytorch."""
  import torch
  from vector_quantize_pytorch import LFQ

  torch.manual_seed(0)
  module = LFQ(dim=BITS, codebook_size=2**BITS, entropy_loss_weight=1.0)
  z = torch.randn(1, args.peer_latents, BITS, requires_grad=True)

  def step():
    z.grad = None
    module(z)[2].sum().backward()

  return (best(step, args.repeats),)


if __name__ == "__main__":
  sys.exit(main())
