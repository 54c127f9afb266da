"""Compile a program for a TPU pod, here, and say what it would cost there.

Example (libtpu is needed, no TPU: pip install '.[plan]'):

  python -m magvit_jax plan --config=tokenizer/clips --topology=v5e:4x4 \\
    --per_chip_batch=16

Memory per device, FLOPs, the compiler's estimate of the time by kind,
collectives, the dearest operations and their source lines. --config.a.b=value
sets values as in train. --json=F keeps a plan, --against=F compares with one.
--search tries at most 8 choices of per-chip batch, remat and mesh.
"""

import argparse
import json
from typing import Any

from magvit_jax import run_config
from magvit_jax.files import paths
from magvit_jax.hardware import chips
from magvit_jax.planner import plan, programs, search, text


def main(argv: list[str]) -> int:
  """Returns 0, or 1 for a program that does not fit."""
  flags, rest = _parser().parse_known_args(argv)
  topology = chips.parse(flags.topology, flags.slices)
  # A wrong file is found before minutes of compiling.
  old = _read(flags.against) if flags.against else None
  if flags.json:
    _check_writable(flags.json)
  cfg = run_config.load_config(flags.config)
  run_config.override(cfg, rest)
  cfg = programs.resolve(cfg, flags.config, flags.tokenizer, flags.classes)
  if flags.search:
    rows = search.run(cfg, topology, flags.program, flags.config, say=_say)
    print(text.ranking(rows))
    return _finish(rows[0]["plan"], flags.json, old)
  if flags.per_chip_batch:
    programs.set_batch(cfg, topology, flags.per_chip_batch)
  made = plan.make(cfg, topology, flags.program, flags.config)
  print(text.report(made))
  return _finish(made, flags.json, old)


def _finish(made: dict[str, Any], path: str, old: dict[str, Any] | None) -> int:
  if old:
    print("\n" + text.difference(made, old))
  if path:
    paths.write_text(paths.as_path(path), json.dumps(made, indent=1))
    print(f"\nplan written to {path}")
  return 0 if made["memory"]["fits"] else 1


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax plan",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--config", required=True, help="file or name[:argument]")
  add("--topology", required=True, help=f"such as {chips.EXAMPLES}")
  add("--slices", type=int, default=1, help="slices of that topology")
  add(
    "--program",
    default="train",
    help="train, predict, encode, decode or sample (default: train)",
  )
  add(
    "--per_chip_batch",
    type=int,
    default=0,
    help="examples per part of the batch, in place of batch and eval.batch",
  )
  add(
    "--tokenizer",
    default="",
    help="config of a generator's tokenizer (default: the run in "
    "tokenizer.workdir, else the config of the same name)",
  )
  add(
    "--classes",
    type=int,
    default=programs.CLASSES,
    help=f"labels of a generator's data (default: {programs.CLASSES})",
  )
  add("--json", default="", help="file to keep the plan in")
  add("--against", default="", help="a kept plan to compare with")
  add("--search", action="store_true", help="rank batches, remat and meshes")
  return parser


def _say(line: str) -> None:
  print(line, flush=True)


def _read(path: str) -> dict[str, Any]:
  file = paths.as_path(path)
  if not file.is_file():
    raise FileNotFoundError(
      f"--against={path}: there is no such file; write one with --json={path}"
    )
  try:
    found = json.loads(file.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"--against={path} is no plan: {error}") from error
  if not isinstance(found, dict) or "matmul_time" not in found:
    raise ValueError(
      f"--against={path} is no plan; plans are written with --json"
    )
  return found


def _check_writable(path: str) -> None:
  folder = paths.as_path(path).absolute().parent
  if not folder.is_dir():
    raise FileNotFoundError(
      f"--json={path}: there is no folder {folder}; make it first"
    )
