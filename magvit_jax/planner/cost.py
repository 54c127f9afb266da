"""Adds up what the compiler estimates for a program, loops included.

Compute carries the compiler's `estimated_cycles`. Collectives and kernels
carry none: a collective is charged the bytes a chip sends over a ring of its
group, at the bandwidth of one torus axis (or of the data centre network); a
kernel its FLOPs at half of the peak. What else has no estimate is charged its
bytes at the memory bandwidth. Asynchronous copies between memories run beside
the rest; their time is kept apart.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from magvit_jax.hardware.chips import Chip
from magvit_jax.planner import hlo

MATMUL, ELEMENTWISE, MOVEMENT = "matmul", "elementwise", "movement"
COLLECTIVE, KERNEL, COPY = "collective", "kernel", "copy"
COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)
KERNEL_TARGET = "tpu_custom_call"
KERNEL_SHARE = 0.5  # of the peak

# Nothing is done, or its cost stands elsewhere (at the start of a pair).
_FREE = frozenset(
  "parameter constant tuple get-tuple-element bitcast after-all partition-id "
  "replica-id opt-barrier domain add-dependency recv recv-done send-done "
  "copy-done async-done async-update rng-get-and-update-state".split()
)
_DATA = frozenset(
  "parameter constant tuple get-tuple-element bitcast copy convert transpose "
  "reshape slice dynamic-slice dynamic-update-slice concatenate pad broadcast "
  "iota reverse gather scatter sort partition-id fusion".split()
)
_MOVERS = frozenset(("gather", "scatter", "sort"))


class Operation(NamedTuple):
  """One instruction, with all of its runs.

  Attributes:
    name: of the instruction.
    kind: one of the six above.
    runs: how often it runs in a step.
    seconds: of all runs together.
    cycles: the compiler's, of all runs; 0 where it gives none.
    bytes: sent or copied, of all runs; 0 for compute.
    what: opcode, or the kind of collective ('… (DCN)' between slices).
    scope: op_name.
    source: 'file:line', or ''.
    shape: of the result.
    estimated: whether the compiler gave the cycles.
  """

  name: str
  kind: str
  runs: int
  seconds: float
  cycles: int
  bytes: float
  what: str
  scope: str
  source: str
  shape: str
  estimated: bool


class Cost(NamedTuple):
  """All operations that take time, and loops whose trips are unknown."""

  operations: tuple[Operation, ...]
  unknown_loops: tuple[str, ...]

  def seconds(self, *kinds: str) -> float:
    """Time of the operations of some kinds."""
    return sum(o.seconds for o in self.operations if o.kind in kinds)


def account(
  text: str, chip: Chip, devices: int, slices: int = 1, kernel_flops: float = 0
) -> Cost:
  """Reads a compiled module and charges every operation.

  Args:
    text: of the compiled HLO module.
    chip: what it is compiled for.
    devices: of all slices.
    slices: how many.
    kernel_flops: FLOPs per device and step of the kernels that state none in
      the text; they share them evenly by run.
  """
  module = hlo.parse(text)
  walk = _Walk(module, chip, devices // slices, slices)
  walk.computation(module.computations[module.entry], 1, {})
  found = walk.found
  silent = sum(o.runs for o in found if o.kind == KERNEL and not o.seconds)
  each = kernel_flops / silent / (KERNEL_SHARE * chip.peak) if silent else 0.0
  found = [
    o._replace(seconds=each * o.runs)
    if o.kind == KERNEL and not o.seconds
    else o
    for o in found
  ]
  return Cost(tuple(found), tuple(walk.unknown))


class _Walk:
  """Visits what runs, with how often it runs."""

  def __init__(self, module: hlo.Module, chip: Chip, group: int, slices: int):
    self.module, self.chip = module, chip
    self.group, self.slices = group, slices  # devices of a slice; slices
    self.found: list[Operation] = []
    self.unknown: list[str] = []
    self.started = {
      op.attribute(r"channel_id=(\d+)")
      for place in module.computations.values()
      if _starts(place)
      for op in place.instructions.values()
    } - {None}

  def computation(
    self, place: hlo.Computation, runs: int, known: dict[int, int]
  ) -> None:
    for op in place.instructions.values():
      if op.opcode == "while":
        self._loop(op, place, runs, known)
      elif op.opcode in ("call", "conditional", "async-start"):
        # The branches of a conditional count as if all of them ran.
        for name in op.called:
          self.computation(self.module.computations[name], runs, {})
      elif op.opcode not in _FREE and not op.opcode.endswith("-done"):
        self._charge(op, place, runs)

  def _loop(self, op, place, runs, known) -> None:
    trips = hlo.trip_count(self.module, op, place, known)
    if trips is None:
      self.unknown.append(op.name)
      trips = 1
    inner = hlo.constants(self.module, op, place, known)
    body = self.module.computations[op.attribute(r"body=%?([\w.\-]+)")]
    self.computation(body, runs * trips, inner)

  def _charge(self, op, place, runs) -> None:
    base = op.opcode.removesuffix("-start")
    if base in COLLECTIVES:
      self._collective(op, place, runs, base)
    elif op.opcode == "send":
      self._send(op, place, runs)
    elif op.opcode == "custom-call":
      self._custom(op, runs)
    elif op.opcode.endswith("-start"):
      # Of a copy or a slice; the result is (operand, what is moved, flag).
      source = place.instructions[op.operands[0]].padded
      moved = min(source, op.padded - source)
      self._add(op, COPY, runs, bytes=moved, seconds=self._memory(moved))
    else:
      self._compute(op, place, runs)

  def _compute(self, op, place, runs) -> None:
    inside = list(self._inside(op))
    for inner, owner in inside:
      base = inner.opcode.removesuffix("-start")
      if base in COLLECTIVES and not self._continued(inner, owner):
        # A fusion that keeps its own part of a sum is a reduce-scatter.
        root = owner.instructions[owner.root].opcode
        part = base == "all-reduce" and root == "dynamic-slice"
        base = "reduce-scatter" if part else base
        self._collective(inner, owner, runs, base)
    if op.cycles is not None:
      seconds = op.cycles / self.chip.clock
      kind = _kind(op, [inner for inner, _ in inside])
      self._add(op, kind, runs, seconds=seconds, cycles=op.cycles)
    elif not any(i.opcode.startswith(COLLECTIVES) for i, _ in inside):
      moved = _touched(op, [place.instructions[n] for n in op.operands])
      kind = _kind(op, [inner for inner, _ in inside])
      self._add(op, kind, runs, seconds=self._memory(moved), estimated=False)

  def _continued(self, op, owner) -> bool:
    """Whether it is a later step of a collective that others are fused with.

    Each of these fusions names the whole collective; the first is charged.
    """
    channel = op.attribute(r"channel_id=(\d+)")
    return channel in self.started and not _starts(owner)

  def _collective(self, op, place, runs, base) -> None:
    size = self._operand_bytes(op, place)
    moved = size * sent(base, group_size(op, self.group))
    self._add(
      *(op, COLLECTIVE, runs),
      seconds=moved / self.chip.ring,
      bytes=moved,
      what=base,
    )

  def _send(self, op, place, runs) -> None:
    """A transfer over the data centre network, by the megascale runtime."""
    if "megascale" not in op.attributes:
      return
    kind = op.attribute(r'transfer_type="(\w+)"') or "send"
    base = kind.lower().replace("_", "-")
    size = place.instructions[op.operands[0]].bytes
    moved = size * (sent(base, self.slices) if base == "all-reduce" else 1)
    self._add(
      *(op, COLLECTIVE, runs),
      seconds=moved / self.chip.dcn,
      bytes=moved,
      what=f"{base} (DCN)",
    )

  def _custom(self, op, runs) -> None:
    target = op.attribute(r'custom_call_target="([^"]*)"')
    if target == KERNEL_TARGET:
      flops = op.attribute(r'"cost_estimate":\{"flops":"?(\d+)')
      peak = KERNEL_SHARE * self.chip.peak
      seconds = float(flops) / peak if flops else 0.0
      self._add(op, KERNEL, runs, seconds=seconds, what=op.name)
    elif op.cycles is not None:
      seconds = op.cycles / self.chip.clock
      self._add(op, ELEMENTWISE, runs, seconds=seconds, cycles=op.cycles)

  def _add(
    self,
    op: hlo.Instruction,
    kind: str,
    runs: int,
    *,
    seconds: float,
    cycles: int = 0,
    bytes: float = 0.0,
    what: str = "",
    estimated: bool = True,
  ) -> None:
    self.found.append(
      Operation(
        name=op.name,
        kind=kind,
        runs=runs,
        seconds=seconds * runs,
        cycles=cycles * runs,
        bytes=bytes * runs,
        what=what or op.opcode,
        scope=op.scope,
        source=hlo.source(self.module, op),
        shape=re.sub(r"\{[^}]*\}", "", op.shape),
        estimated=estimated,
      )
    )

  def _inside(
    self, op: hlo.Instruction
  ) -> Iterator[tuple[hlo.Instruction, hlo.Computation]]:
    """All instructions of a fusion, those of nested fusions too."""
    if op.opcode != "fusion":
      return
    for name in op.called:
      place = self.module.computations[name]
      for inner in place.instructions.values():
        yield inner, place
        yield from self._inside(inner)

  def _operand_bytes(self, op, place) -> int:
    return sum(place.instructions[name].bytes for name in op.operands)

  def _memory(self, moved: float) -> float:
    return moved / self.chip.hbm_bandwidth


def sent(collective: str, group: int) -> float:
  """Bytes a chip sends in a ring of `group`, per byte that it puts in."""
  return {
    "all-gather": group - 1,
    "all-reduce": 2 * (group - 1) / group,
    "reduce-scatter": (group - 1) / group,
    "all-to-all": (group - 1) / group,
    "ragged-all-to-all": (group - 1) / group,
  }.get(collective, 1)


def _starts(place: hlo.Computation) -> bool:
  """Whether a fusion begins a collective that runs beside other fusions."""
  return any(
    op.attribute(r'custom_call_target="([^"]*)"') == "AsyncCollectiveStart"
    for op in place.instructions.values()
  )


def group_size(op: hlo.Instruction, everyone: int) -> int:
  """Devices that take part in one group of a collective."""
  text = op.attributes
  if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
    return found[1].count(",") + 1
  if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", text):
    return int(found[1])
  if found := re.search(r"replica_groups=mesh\[([^\]]*)\](.*)", text):
    sizes = {k: int(v) for k, v in re.findall(r"'(\w+)'=(\d+)", found[1])}
    used = re.search(r"\{('[^}]*)\}", found[2])
    # A part of an axis is written 'axis_0':(before)size.
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", used[1]) if used else []
    return math.prod(int(part) if part else sizes[k] for k, part in axes)
  return everyone


def _touched(op: hlo.Instruction, operands: list[hlo.Instruction]) -> int:
  """Bytes that an instruction without an estimate reads and writes."""
  if op.opcode == "dynamic-update-slice":
    # In place: only what it writes.
    return 2 * operands[1].padded
  if op.opcode in ("slice", "dynamic-slice", "gather"):
    return 2 * op.padded
  return op.padded + sum(o.padded for o in operands)


def _kind(op: hlo.Instruction, inside: list[hlo.Instruction]) -> str:
  """What a fusion or a lone instruction mostly does."""
  work = inside or [op]
  names = {i.opcode for i in work}
  if names & {"convolution", "dot"}:
    return MATMUL
  if names & _MOVERS:
    return MOVEMENT
  for i in work:
    # Arithmetic on scalars is that of addresses, unless it is a total.
    scalar = "[]" in i.shape and not i.opcode.startswith("reduce")
    if i.opcode not in _DATA and not scalar:
      return ELEMENTWISE
  return MOVEMENT
