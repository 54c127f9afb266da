"""One row per shipped config: what its train step would cost on two pods.

  python benchmarks/plan_table.py
  python benchmarks/plan_table.py --configs=tokenizer/clips --json=table.json

Needs libtpu (`pip install libtpu`), no TPU. A compile takes a minute or more;
each runs in this process, one after the other. The batch of a config is used
where the mesh divides it, else one example per part of the mesh. All times are
the compiler's estimates, without overlap of communication.
"""

import argparse
import json
import pathlib
import sys

TOPOLOGIES = "v5e:4x4,v5p:2x2x4"
HEAD = (
  "config",
  "topology",
  "batch",
  "GiB",
  "fits",
  "matmul ms",
  "step ms",
  "x matmul",
  "MFU",
  "examples/s",
  "hours",
  "compile s",
)


def main() -> int:
  """Prints the table; returns 1 if a config could not be planned."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--configs", default="", help="default: all that ship")
  parser.add_argument("--topologies", default=TOPOLOGIES)
  parser.add_argument("--json", default="", help="file for all plans")
  args = parser.parse_args()
  from magvit_jax.planner import text

  rows, plans, failed = [HEAD], [], 0
  names = args.configs.split(",") if args.configs else shipped()
  for name in names:
    for topology in args.topologies.split(","):
      try:
        plan = one(name, topology)
      except (KeyError, ValueError, OSError) as error:
        print(f"{name} on {topology}: {error}", file=sys.stderr)
        failed = 1
        continue
      plans.append(plan)
      rows.append(cells(plan))
      print("  ".join(rows[-1]), flush=True)
  print("\n" + text.align(rows))
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(plans), encoding="utf-8")
  return failed


def shipped() -> list[str]:
  """Names of the configs in configs/, such as 'tokenizer/clips'."""
  folder = pathlib.Path(__file__).resolve().parent.parent / "configs"
  return sorted(
    f"{path.parent.name}/{path.stem}"
    for path in folder.glob("*/*.py")
    if not path.stem.startswith("_")
  )


def one(name: str, text: str) -> dict:
  """The plan of a config's train step on a topology."""
  from magvit_jax import run_config
  from magvit_jax.hardware import chips
  from magvit_jax.planner import plan, programs

  topology = chips.parse(text)
  cfg = programs.resolve(run_config.load_config(name), name, "")
  parts = programs.batch_parts(cfg, topology)
  if cfg.batch % parts:
    programs.set_batch(cfg, topology, max(1, cfg.batch // parts))
  return plan.make(cfg, topology, "train", name)


def cells(plan: dict) -> tuple[str, ...]:
  """A row of the table."""
  memory = plan["memory"]
  head = (plan["config"], plan["topology"], str(plan["batch"]))
  if not memory["fits"]:
    over = (memory["over"] or 0) / 2**30
    total = (memory["capacity"] / 2**30) + over
    return (*head, f"{total:.2f}", "NO", *[""] * 7)
  return (
    *head,
    f"{memory['total'] / 2**30:.2f}",
    "yes",
    f"{plan['matmul_time'] * 1e3:.2f}",
    f"{plan['step']['no_overlap'] * 1e3:.2f}",
    f"{plan['ratio']['no_overlap']:.2f}",
    f"{plan['mfu']['no_overlap']:.1%}",
    f"{plan['examples_per_second']['no_overlap']:,.0f}",
    f"{plan['hours']['no_overlap']:.2f}",
    f"{plan['compile_seconds']:.0f}",
  )


if __name__ == "__main__":
  sys.exit(main())
