"""Compiles a program with libtpu's compiler, for chips that are not here."""

import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import jax

from magvit_jax import messages
from magvit_jax.hardware.chips import EXAMPLES, Topology
from magvit_jax.planner import hlo

# Read when libtpu is loaded. Nothing looks for chips or for the servers of a
# cloud, and a second planner may run beside this one.
ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
}
FRAMES = 40  # of a source location; Linen's own fill the usual ten


class TooBig(Exception):
  """A program that the compiler refuses because it does not fit.

  Attributes:
    temporaries: bytes per device, or None where it does not say.
    over: bytes beyond the memory, or None.
    tensors: the largest allocations it lists, as text.
  """

  def __init__(self, message: str):
    super().__init__(message)
    self.temporaries, self.over, self.tensors = _read_refusal(message)


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes per device of a compiled program."""

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """What has to fit; aliased outputs lie in their arguments."""
    own = self.arguments + self.outputs - self.aliased
    return own + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler made of a program."""

  text: str
  memory: Memory
  seconds: float


def devices(topology: Topology) -> list[Any]:
  """The devices of a topology, made up by libtpu.

  Raises:
    ValueError: no libtpu, or it does not know the topology.
  """
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  options: dict[str, Any] = dict(topology.chip.options)
  if topology.slices > 1:
    options["num_slices"] = topology.slices
  if math.prod(topology.shape) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=topology.name, **options
    )
  except Exception as error:
    # jaxlib has no class of its own for any of these.
    if _missing(error):
      raise ValueError(
        "planning needs the TPU compiler, libtpu, which is not installed (no "
        f"TPU is needed): {messages.install_extra('plan')}"
      ) from error
    raise ValueError(
      f"--topology={topology.name}: libtpu does not know it "
      f"({str(error).splitlines()[0]}). Examples: {EXAMPLES}"
    ) from error
  return list(found.devices)


@contextlib.contextmanager
def quiet_cpu() -> Iterator[None]:
  """JAX itself stays on the CPU, and keeps enough frames of its sources.

  It would otherwise look for a TPU, which libtpu makes it believe in.
  """
  names = ("jax_platforms", "jax_traceback_in_locations_limit")
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_traceback_in_locations_limit", FRAMES)
  try:
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def compile_program(traced: Any) -> Compiled:
  """Compiles a `jax.stages.Traced`.

  Raises:
    TooBig: it does not fit in the memory of a device.
  """
  begin = time.perf_counter()
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" in str(error):
      raise TooBig(str(error)) from error
    raise
  seconds = time.perf_counter() - begin
  stats = compiled.memory_analysis()
  memory = Memory(
    arguments=stats.argument_size_in_bytes,
    outputs=stats.output_size_in_bytes,
    aliased=stats.alias_size_in_bytes,
    temporaries=stats.temp_size_in_bytes,
    code=stats.generated_code_size_in_bytes,
  )
  return Compiled(compiled.as_text(), memory, seconds)


def argument_bytes(args: Any) -> int:
  """Bytes per device of abstract arguments with shardings."""
  total = 0
  for leaf in jax.tree.leaves(args):
    shape = leaf.sharding.shard_shape(leaf.shape)
    total += math.prod(shape) * leaf.dtype.itemsize
  return total


def largest(jaxpr: Any, devices: int, count: int = 3) -> list[dict[str, Any]]:
  """The biggest results in a jaxpr, if each is split over all devices.

  The compiler lists none when it refuses a program early. Loops keep one
  iteration of what is inside them.
  """
  found: dict[tuple[str, str], dict[str, Any]] = {}
  for equation in _equations(jaxpr):
    for var in equation.outvars:
      shape, dtype = var.aval.shape, var.aval.dtype
      size = math.prod(shape) * getattr(dtype, "itemsize", 4) / devices
      where, name = _where(equation), f"{dtype}{list(shape)}"
      found[name, where] = dict(bytes=size, what=name, source=where)
  order = sorted(found.values(), key=lambda row: -row["bytes"])
  return order[:count]


def _equations(jaxpr: Any) -> Iterator[Any]:
  inner = getattr(jaxpr, "jaxpr", jaxpr)
  for equation in inner.eqns:
    nested = [
      sub
      for value in equation.params.values()
      for sub in (value if isinstance(value, (tuple, list)) else (value,))
      if hasattr(getattr(sub, "jaxpr", sub), "eqns")
    ]
    for sub in nested:
      yield from _equations(sub)
    if not nested:
      yield equation


def _where(equation: Any) -> str:
  trace = equation.source_info.traceback
  for frame in trace.frames if trace else ():
    if "site-packages" not in frame.file_name:
      return f"{hlo.shorten(frame.file_name)}:{frame.line_num}"
  return ""


def _missing(error: Exception) -> bool:
  text = str(error)
  return (
    "TPU support not installed" in text
    or "libtpu" in text
    and ("No such file" in text or "cannot open" in text)
  )


def _read_refusal(message: str):
  """(temporaries, bytes over the memory, the largest allocations)."""
  size = r"([\d.]+)([KMGT]?)"
  early = re.search(rf"HLO temporaries \({size}\)", message)
  over = re.search(rf"Exceeded hbm capacity by {size}", message)
  tensors = []
  for block in re.split(r"\n\s*\d+\. ", message)[1:]:
    row = re.match(rf"Size: {size}", block)
    if row:
      op = re.search(r'op_name="([^"]*)"', block)
      shape = re.search(r"(?:Unpadded size|Shape): (\S+)", block)
      shape = re.search(r"Shape: (\S+?)\{", block) or shape
      tensors.append(
        dict(
          bytes=_bytes(*row.groups()),
          what=shape.group(1) if shape else "",
          source=op.group(1) if op else "",
        )
      )
  tensors.sort(key=lambda row: -row["bytes"])
  return (
    _bytes(*early.groups()) if early else None,
    _bytes(*over.groups()) if over else None,
    tensors[:3],
  )


def _bytes(number: str, unit: str) -> float:
  powers = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
  return float(number) * 1024 ** powers[unit]
