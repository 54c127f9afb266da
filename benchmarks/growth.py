"""Bytes and FLOPs against clip length, resolution, batch and devices.

  python benchmarks/growth.py
  python benchmarks/growth.py --config=tokenizer/clips --program=encode \\
    --run=256 --out=growth

One axis grows at a time, from 17 frames of 64x64, one clip. Each point is
compiled for a v5e (libtpu, no TPU needed); points of at most --run megapixels
are run on this machine too. Writes OUT.json and OUT.png. The slope is that of
the logarithms over the whole axis: 1 is linear, 2 is quadratic.
"""

import argparse
import json
import math
import pathlib
import sys
import time

AXES = {
  "frames": (17, 33, 65, 129, 257),
  "size": (64, 128, 256, 512),
  "batch": (1, 2, 4, 8),
  "devices": (1, 4, 16, 64),
}
START = {"frames": 17, "size": 64, "batch": 1, "devices": 1}
TOPOLOGIES = {1: "v5e:1x1", 4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8"}
MEASURES = ("bytes per device", "FLOPs", "step seconds", "CPU seconds")


def main() -> int:
  """Prints a table per axis; writes the plot and the numbers."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="tokenizer/clips")
  parser.add_argument("--program", default="encode")
  parser.add_argument("--axes", default=",".join(AXES))
  parser.add_argument("--run", type=float, default=0.3, help="megapixels")
  parser.add_argument("--out", default="growth")
  args = parser.parse_args()
  found, done = {}, {}
  for axis in args.axes.split(","):
    rows = []
    for value in AXES[axis]:
      point = {**START, axis: value}
      # The batch of a pod is one clip per device.
      key = tuple(point.values())
      if key not in done:
        done[key] = measure(args, point)
      rows.append({"at": value, **done[key]})
      print(f"{axis} {value}: {show(done[key])}", flush=True)
    found[axis] = rows
    for name in MEASURES[:2]:
      print(f"  slope of {name}: {slope(rows, name):.2f}")
  text = json.dumps(found, indent=1)
  pathlib.Path(f"{args.out}.json").write_text(text, encoding="utf-8")
  draw(found, f"{args.out}.png", f"{args.config} {args.program}")
  print(f"written: {args.out}.json, {args.out}.png")
  return 0


def measure(args: argparse.Namespace, point: dict[str, int]) -> dict:
  """Plans one point and, if it is small, runs it here."""
  from magvit_jax import run_config
  from magvit_jax.hardware import chips
  from magvit_jax.planner import plan, programs

  cfg = run_config.load_config(args.config)
  cfg.data.frames = point["frames"]
  cfg.data.size = (point["size"], point["size"])
  cfg = programs.resolve(cfg, args.config, "")
  topology = chips.parse(TOPOLOGIES[point["devices"]])
  programs.set_batch(cfg, topology, point["batch"])
  made = plan.make(cfg, topology, args.program, args.config)
  memory = made["memory"]
  row = {
    "bytes per device": memory.get("total", memory["capacity"]),
    "FLOPs": made["flops"]["matmul"],
    "fits": memory["fits"],
  }
  if memory["fits"]:
    row["step seconds"] = made["step"]["no_overlap"]
  pixels = point["frames"] * point["size"] ** 2 * point["batch"] / 1e6
  if point["devices"] == 1 and pixels <= args.run:
    row["CPU seconds"] = execute(cfg, args.program)
  return row


def execute(cfg, program: str) -> float:
  """Seconds of one call on this machine, the best of three."""
  import jax
  import jax.numpy as jnp

  from magvit_jax import sharding
  from magvit_jax.planner import programs

  jax.config.update("jax_platforms", "cpu")
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  made = programs.make(cfg, program, mesh)
  run = made.make().lower(*made.args).compile()

  def filled(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.key(0)
    return jnp.zeros(leaf.shape, leaf.dtype)

  best = math.inf
  for _ in range(3):
    # The state is donated by the train step: each call has its own.
    args = jax.block_until_ready(jax.tree.map(filled, made.args))
    args = jax.device_put(args, sharding.replicated(mesh))
    begin = time.perf_counter()
    jax.block_until_ready(run(*args))
    best = min(best, time.perf_counter() - begin)
  return best


def slope(rows: list[dict], name: str) -> float:
  """Exponent of the growth between the first and the last point that fit."""
  fit = [row for row in rows if row["fits"] and row[name]]
  if len(fit) < 2:
    return math.nan
  first, last = fit[0], fit[-1]
  grown = math.log(last[name] / first[name])
  return grown / math.log(last["at"] / first["at"])


def show(row: dict) -> str:
  """A point in words."""
  parts = [f"{row['bytes per device'] / 2**20:,.0f} MiB", f"{row['FLOPs']:.3g}"]
  parts[1] += " FLOPs"
  for name in MEASURES[2:]:
    if name in row:
      parts.append(f"{name} {row[name]:.3g}")
  return ", ".join(parts if row["fits"] else [*parts, "does not fit"])


def draw(found: dict[str, list[dict]], path: str, title: str) -> None:
  """One panel per axis, all measures relative to the first point."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, panels = pyplot.subplots(
    1, len(found), figsize=(4 * len(found), 4), squeeze=False
  )
  for panel, (axis, rows) in zip(panels[0], found.items(), strict=True):
    for name in MEASURES:
      kept = [row for row in rows if name in row and row["fits"]]
      if kept and kept[0][name]:
        first = kept[0][name]
        values = [row[name] / first for row in kept]
        panel.loglog([row["at"] for row in kept], values, "o-", label=name)
    places = [row["at"] for row in rows]
    panel.set_xticks(places, [str(place) for place in places])
    panel.set_xticks([], minor=True)
    panel.set_xlabel(axis)
    panel.set_title(f"{title}: {axis}", fontsize=9)
    panel.grid(True, which="both", alpha=0.3)
  panels[0][0].set_ylabel("relative to the first point")
  panels[0][0].legend()
  figure.tight_layout()
  figure.savefig(path, dpi=100)


if __name__ == "__main__":
  sys.exit(main())
