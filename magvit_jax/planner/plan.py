"""One plan: what a program costs on a topology, as a dict of plain values."""

from typing import Any

import jax

from magvit_jax import registry, sharding, tokenizers
from magvit_jax.hardware import flops
from magvit_jax.hardware.chips import Topology
from magvit_jax.nn import target_platform
from magvit_jax.planner import compile as compiling
from magvit_jax.planner import cost, programs

DEAREST = 10


def make(
  cfg: Any, topology: Topology, program: str = "train", spec: str = ""
) -> dict[str, Any]:
  """Compiles a program of a config and accounts for it.

  Args:
    cfg: resolved by `programs.resolve`.
    topology: what to plan for.
    program: one of programs.PROGRAMS.
    spec: name of the config, for the record.

  Returns:
    What JSON can hold; bytes and FLOP rates are per device, times in seconds:
    - 'config', 'program', 'topology', 'slices', 'devices', 'mesh', 'batch',
      'dtype', 'versions'
    - 'memory': 'arguments', 'outputs', 'aliased', 'temporaries', 'code',
      'total', 'capacity', 'fits', 'over'; 'tensors': the three biggest, if it
      does not fit (what follows is missing then)
    - 'flops': of dots and convolutions and of kernels, on all devices
    - 'seconds', 'cycles': by kind; 'step': predicted, 'no_overlap' and
      'full_overlap'; 'mfu', 'ratio' (to the matmul time) likewise
    - 'examples_per_second', 'hours': likewise
    - 'collectives', 'dearest': rows; 'scopes': seconds by op_name
    - 'compile_seconds'

  Raises:
    KeyError, ValueError: a program, mesh or batch that does not exist.
  """
  with compiling.quiet_cpu():
    mesh = sharding.make_mesh(**cfg.mesh, devices=compiling.devices(topology))
    made = programs.make(cfg, program, mesh)
    traced = made.trace()
    counted = flops.model_flops(traced.jaxpr)
    head = _head(cfg, spec, topology, mesh, made, counted)
    try:
      done = compiling.compile_program(traced)
    except compiling.TooBig as error:
      return {**head, "memory": _refused(error, made, traced, topology)}
  memory = _memory(done.memory, topology)
  found = cost.account(
    done.text,
    topology.chip,
    topology.devices,
    topology.slices,
    counted.kernel / topology.devices,
  )
  return {
    **head,
    "memory": memory,
    **_time(found, head["matmul_time"], made),
    "collectives": _collectives(found),
    "dearest": _dearest(found),
    "scopes": _scopes(found),
    "unknown_loops": list(found.unknown_loops),
    "compile_seconds": done.seconds,
  }


def _head(cfg, spec, topology, mesh, made, counted) -> dict[str, Any]:
  peak = topology.chip.peak * topology.devices
  with target_platform.tracing_for(programs.PLATFORM):
    dtype = tokenizers.compute_dtype(cfg.stage.dtype)
  return {
    "config": spec,
    "program": made.name,
    "topology": topology.name,
    "slices": topology.slices,
    "devices": topology.devices,
    "mesh": {axis: int(size) for axis, size in mesh.shape.items()},
    "batch": made.batch,
    "dtype": str(dtype),
    "versions": {"jax": jax.__version__, "libtpu": _libtpu()},
    "resolved": registry.plain(cfg),
    "flops": {
      "matmul": counted.matmul,
      "kernel": counted.kernel,
      "unbounded_loops": counted.unbounded,
    },
    "matmul_time": counted.matmul / peak,
  }


def _libtpu() -> str:
  from importlib import metadata

  return metadata.version("libtpu")


def _memory(memory: compiling.Memory, topology: Topology) -> dict[str, Any]:
  over = max(0, memory.total - topology.chip.hbm)
  return {
    "arguments": memory.arguments,
    "outputs": memory.outputs,
    "aliased": memory.aliased,
    "temporaries": memory.temporaries,
    "code": memory.code,
    "total": memory.total,
    "capacity": topology.chip.hbm,
    "fits": not over,
    "over": over,
  }


def _refused(error, made, traced, topology) -> dict[str, Any]:
  """What is known of a program that the compiler refused."""
  arguments = compiling.argument_bytes(made.args)
  capacity = topology.chip.hbm
  temporaries = error.temporaries
  over = error.over
  if temporaries is not None:
    over = arguments + temporaries - capacity
  return {
    "arguments": arguments,
    "temporaries": temporaries,
    "capacity": capacity,
    "fits": False,
    "over": over,
    "tensors": error.tensors
    or compiling.largest(flops.live(traced.jaxpr), topology.devices),
    "listed": bool(error.tensors),
  }


def _time(found, matmul_time, made) -> dict[str, Any]:
  """Seconds by kind and what follows from them."""
  kinds = (cost.MATMUL, cost.ELEMENTWISE, cost.MOVEMENT)
  seconds = {kind: found.seconds(kind) for kind in kinds}
  cycles = {
    kind: sum(o.cycles for o in found.operations if o.kind == kind)
    for kind in kinds
  }
  compute = sum(seconds.values())
  rest = [o.seconds for o in found.operations if not o.estimated]
  kernels, links, copies = (
    found.seconds(k) for k in (cost.KERNEL, cost.COLLECTIVE, cost.COPY)
  )
  # Copies run beside the cores; they count only where they take longer.
  busy = max(compute + kernels, copies)
  step = {"no_overlap": busy + links, "full_overlap": max(busy, links)}
  result = {
    "seconds": {
      **seconds,
      cost.KERNEL: kernels,
      cost.COLLECTIVE: links,
      cost.COPY: copies,
      "without_estimate": sum(rest),
    },
    "cycles": cycles,
    "step": step,
    "mfu": {k: matmul_time / v if v else 0.0 for k, v in step.items()},
    "ratio": {
      k: v / matmul_time if matmul_time else None for k, v in step.items()
    },
    "examples_per_second": {
      k: made.batch / v if v else None for k, v in step.items()
    },
  }
  if made.steps:
    result["steps"] = made.steps
    result["hours"] = {k: v * made.steps / 3600 for k, v in step.items()}
  return result


def _collectives(found: cost.Cost) -> list[dict[str, Any]]:
  """Collectives and kernels by kind, dearest first."""
  rows: dict[tuple[str, str], dict[str, Any]] = {}
  for o in found.operations:
    if o.kind in (cost.COLLECTIVE, cost.KERNEL):
      row = rows.setdefault(
        (o.kind, o.what),
        dict(kind=o.kind, what=o.what, runs=0, bytes=0.0, seconds=0.0),
      )
      row["runs"] += o.runs
      row["bytes"] += o.bytes
      row["seconds"] += o.seconds
  return sorted(rows.values(), key=lambda row: -row["seconds"])


def _dearest(found: cost.Cost) -> list[dict[str, Any]]:
  timed = [o for o in found.operations if o.kind != cost.COPY]
  timed.sort(key=lambda o: -o.seconds)
  keep = ("name", "kind", "runs", "seconds", "what", "scope", "source", "shape")
  return [{k: getattr(o, k) for k in keep} for o in timed[:DEAREST]]


def _scopes(found: cost.Cost) -> dict[str, float]:
  """Seconds by kind and op_name, which edits elsewhere do not move."""
  sums: dict[str, float] = {}
  for o in found.operations:
    if o.kind != cost.COPY:
      name = f"{o.kind} {o.scope or '(no scope)'}"
      sums[name] = sums.get(name, 0.0) + o.seconds
  return sums
