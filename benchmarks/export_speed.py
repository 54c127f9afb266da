"""Exported encode and decode against the jitted originals, in turn.

  python benchmarks/export_speed.py --workdir=runs/quickstart/tokenizer

Exports the tokenizer of a workdir for this platform, for `--batch` clips of its
training length runs each program and its original by turns, and prints the
medians and their ratio. Whichever begins changes with every round.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

import magvit_jax
from magvit_jax import __main__ as command
from magvit_jax import tokenizers
from magvit_jax.checkpoints import saved_weights
from magvit_jax.checkpoints.saved_weights import PARAMS
from magvit_jax.export import programs
from magvit_jax.files import weight_file


def main() -> None:
  """Prints a line per program."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=30)
  parser.add_argument("--platforms", default="cpu,tpu,cuda")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as base:
    folder = pathlib.Path(base) / "export"
    flags = [f"--workdir={args.workdir}", f"--out={folder}"]
    flags.append(f"--platforms={args.platforms}")
    if command.main(["export", *flags]):
      raise SystemExit("the export failed")
    compare(folder, args.batch, args.rounds)


def compare(folder: pathlib.Path, batch: int, rounds: int) -> None:
  """Measures encode, then decode of the ids that it gave."""
  about = saved_weights.document(folder)
  stage = about["config"]["stage"]
  module = tokenizers.build_tokenizer(stage)
  arrays = weight_file.read(folder / PARAMS)[0]
  tree = saved_weights.weights(
    folder, programs.weight_shapes(about["config"]), None
  )
  params = jax.device_put(arrays)
  rng = np.random.default_rng(0)
  x = rng.uniform(-1, 1, (batch, *about["clip"])).astype(np.float32)
  x = jax.device_put(x)
  print(
    f"magvit_jax {magvit_jax.__version__}, jax {jax.__version__}, "
    f"{jax.devices()[0].device_kind}; {batch} clips of {about['clip'][:3]}"
  )
  for name in ("encode", "decode"):
    exported = programs.program(folder, name)
    original = jax.jit(_original(module, name))
    pair = {
      "exported": lambda x, f=exported: f(params, x),
      "jitted": lambda x, f=original: f(tree, x),
    }
    out = {k: jax.block_until_ready(f(x)) for k, f in pair.items()}
    same = np.mean(np.asarray(out["exported"]) == np.asarray(out["jitted"]))
    times = _by_turns(pair, x, rounds)
    medians = {k: statistics.median(v) for k, v in times.items()}
    ratio = medians["exported"] / medians["jitted"]
    print(
      f"{name}: exported {1e3 * medians['exported']:.2f} ms, jitted "
      f"{1e3 * medians['jitted']:.2f} ms, ratio {ratio:.3f}; least "
      f"{1e3 * min(times['exported']):.2f} and "
      f"{1e3 * min(times['jitted']):.2f} ms; equal numbers {same:.4f}"
    )
    x = out["jitted"]


def _original(module, name):
  def run(tree, x):
    out = module.apply({"params": tree}, x, method=getattr(module, name))
    return out if name == "encode" else jax.numpy.clip(out, -1, 1)

  return run


def _by_turns(pair, x, rounds: int) -> dict[str, list[float]]:
  times: dict[str, list[float]] = {name: [] for name in pair}
  for number in range(rounds):
    order = list(pair) if number % 2 else list(pair)[::-1]
    for name in order:
      start = time.perf_counter()
      jax.block_until_ready(pair[name](x))
      times[name].append(time.perf_counter() - start)
  return times


if __name__ == "__main__":
  main()
