"""Tries a few choices of per-chip batch, remat and mesh, and ranks them."""

import functools
import math
import multiprocessing
from collections.abc import Callable
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import ml_collections

from magvit_jax import registry
from magvit_jax.hardware.chips import Topology
from magvit_jax.planner import plan, programs

MOST = 8  # compiles
BATCHES = 4  # of them for the batch alone
PAYS = 1.02  # a larger batch must be faster by this factor
FAMILIES = ("tokenizers", "transformers", "discriminators")
REMATS = ("none", "dots", "full")


def run(
  cfg: Any,
  topology: Topology,
  program: str,
  spec: str,
  *,
  say: Callable[[str], None],
  make: Callable[..., dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
  """Plans at most 8 choices.

  The batch doubles from that of the config while it fits and pays; then, at
  the best batch, the other meshes and remat are tried.

  Args:
    cfg: resolved by `programs.resolve`.
    topology: what to plan for.
    program: one of programs.PROGRAMS.
    spec: name of the config.
    say: gets a line per choice, as compiles take a while.
    make: what plans one choice; without it `plan.make`, each in a process of
      its own (which does not know of `registry.add_folder`).

  Returns:
    [{'choice', 'plan'}]: those that fit first, by examples per second without
    overlap.

  Raises:
    ChildProcessError: the process of a batch was killed; of the other choices
      `say` is told, and the search goes on.
  """
  make = make or functools.partial(apart, plan.make)
  rows: list[dict[str, Any]] = []

  def attempt(choice: dict[str, Any]) -> dict[str, Any]:
    changed = apply(cfg, topology, choice)
    row = {
      "choice": describe(choice),
      "values": choice,
      "plan": make(changed, topology, program, spec),
    }
    rows.append(row)
    fits = row["plan"]["memory"]["fits"]
    rate = f"{speed(row):,.0f} examples/s" if fits else "does not fit"
    say(f"{len(rows)}/{MOST} {row['choice']}: {rate}")
    return row

  best = _best_batch(cfg, topology, program, attempt)
  for change in _variants(cfg, topology)[: MOST - len(rows)]:
    choice = {**best["values"], **change}
    try:
      attempt(choice)
    except ChildProcessError as error:
      say(f"{describe(choice)}: {error}")
  return sorted(rows, key=lambda row: -speed(row))


def apart(run: Callable[..., Any], *args: Any) -> Any:
  """run(*args) in a new process, whose memory comes back with its end.

  What JAX and the compiler keep of one plan would otherwise lie there during
  the next.

  Raises:
    ChildProcessError: the process was killed.
  """
  spawned = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, mp_context=spawned) as pool:
    try:
      return pool.submit(run, *args).result()
    except BrokenProcessPool as error:
      raise ChildProcessError(
        "the process that planned was killed, most often because the compiler "
        "needs more memory than this machine has: plan on one with more, or a "
        "smaller config"
      ) from error


def speed(row: dict[str, Any]) -> float:
  """Examples per second without overlap; 0 if it does not fit."""
  if not row["plan"]["memory"]["fits"]:
    return 0.0
  return row["plan"]["examples_per_second"]["no_overlap"] or 0.0


def apply(cfg: Any, topology: Topology, choice: dict[str, Any]) -> Any:
  """A copy of the config with a choice made."""
  cfg = ml_collections.ConfigDict(registry.plain(cfg))
  for path in remat_places(cfg) if "remat" in choice else ():
    _at(cfg, path)["remat"] = choice["remat"]
  if "mesh" in choice:
    cfg.mesh = ml_collections.ConfigDict(choice["mesh"])
  programs.set_batch(cfg, topology, choice["batch"])
  return cfg


def describe(choice: dict[str, Any]) -> str:
  """'8 per chip, remat full, data 4 x fsdp 4'."""
  words = [f"{choice['batch']} per chip"]
  if "remat" in choice:
    words.append(f"remat {choice['remat']}")
  if "mesh" in choice:
    sizes = choice["mesh"].items()
    words.append(" x ".join(f"{k} {v}" for k, v in sizes if v != 1) or "data 1")
  return ", ".join(words)


def remat_places(cfg: Any) -> list[tuple[str, ...]]:
  """Paths of the components in the stage that take a `remat` policy."""
  found = []

  def visit(node, path):
    name = node.get("name")
    for family in FAMILIES:
      if name in registry.names(family):
        component = registry.load(family, name)
        if "remat" in registry.arguments(component):
          found.append(path)
    for key, value in node.items():
      if isinstance(value, dict):
        visit(value, (*path, key))

  visit(registry.plain(cfg.stage), ("stage",))
  return found


def _best_batch(cfg, topology, program, attempt) -> dict[str, Any]:
  """Halves a batch that does not fit; doubles one while that pays."""
  batch = cfg.eval.batch if program == "predict" else cfg.batch
  size = max(1, batch // programs.batch_parts(cfg, topology))
  row = attempt({"batch": size})
  grow = row["plan"]["memory"]["fits"]
  for _ in range(BATCHES - 1):
    if not grow and (size == 1 or row["plan"]["memory"]["fits"]):
      break
    size = size * 2 if grow else size // 2
    new = attempt({"batch": size})
    if grow and speed(new) < PAYS * speed(row):
      break
    row = new
  return row


def _variants(cfg: Any, topology: Topology) -> list[dict[str, Any]]:
  """Remat and meshes other than those of the config."""
  changes: list[dict[str, Any]] = []
  places = remat_places(cfg)
  if places:
    present = _at(cfg, places[0]).get("remat", "none")
    changes += [{"remat": value} for value in REMATS if value != present]
  rest = topology.devices // (cfg.mesh.context * cfg.mesh.tensor)
  data = programs.batch_parts(cfg, topology) // cfg.mesh.fsdp
  inside = rest // topology.slices
  half = 2 ** (int(math.log2(inside)) // 2)
  for fsdp in (1, half, inside):
    if rest % fsdp == 0 and rest // fsdp != data:
      mesh = dict(registry.plain(cfg.mesh), data=rest // fsdp, fsdp=fsdp)
      changes.append({"mesh": mesh})
  return changes


def _at(cfg: Any, path: tuple[str, ...]) -> Any:
  return functools.reduce(lambda node, key: node[key], path, cfg)
