"""The TPU chips that can be planned for, and topologies of them.

Peak and bandwidths are the published ones (cloud.google.com/tpu/docs;
torus links and DCN from "How to Scale Your Model", part 2). The clock turns
the compiler's cycles into seconds: it is the published peak divided by the
FLOPs of a cycle. The memory is what libtpu 0.0.42 calls available when it
refuses a program.
"""

import dataclasses
import math
import re

from magvit_jax.messages import suggest

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of chip, as JAX shows it.

  A device is a chip, but on tpu7x, where each of the two cores is a device:
  numbers are per device.

  Attributes:
    peak: bfloat16 FLOP/s.
    clock: cycles per second of the tensor core.
    hbm: bytes of memory that a program may use.
    hbm_bandwidth: bytes/s.
    link: bytes/s in one direction of one torus link.
    dcn: bytes/s between slices.
    axes: dimensions of a topology.
    cores: devices per chip.
    options: of the topology, for the compiler.
  """

  peak: float
  clock: float
  hbm: float
  hbm_bandwidth: float
  link: float
  dcn: float
  axes: int
  cores: int = 1
  options: tuple[tuple[str, str], ...] = ()

  @property
  def ring(self) -> float:
    """Bytes/s of a ring along one torus axis, both directions in use."""
    return 2 * self.link


CHIPS = {
  # Without megacore a v4 core would be a device, which JAX has on no pod.
  "v4": Chip(
    *(275e12, 1.05e9, 30.75 * GIB, 1.228e12, 45e9, 6.25e9, 3),
    options=(("chip_config_name", "megacore"),),
  ),
  "v5e": Chip(197e12, 1.5e9, 15.75 * GIB, 8.19e11, 45e9, 3.125e9, 2),
  "v5p": Chip(459e12, 1.75e9, 95.74 * GIB, 2.765e12, 90e9, 6.25e9, 3),
  "v6e": Chip(918e12, 1.75e9, 31.25 * GIB, 1.64e12, 90e9, 12.5e9, 2),
  # Links and DCN of a chip are shared by its two devices.
  "tpu7x": Chip(
    1153.5e12, 2.2e9, 94.75 * GIB, 3.69e12, 50e9, 6.25e9, 3, cores=2
  ),
}
EXAMPLES = "v4:2x2x4, v5e:4x4, v5e:16x16, v5p:2x2x4, v6e:4x4, tpu7x:2x2x4"


@dataclasses.dataclass(frozen=True)
class Topology:
  """Slices of chips.

  Attributes:
    name: as it was given, such as 'v5e:4x4'.
    kind: key of CHIPS.
    shape: chips along each torus axis of a slice.
    slices: how many, joined by the data centre network.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def chip(self) -> Chip:
    """The numbers of its chip."""
    return CHIPS[self.kind]

  @property
  def devices(self) -> int:
    """Devices of all slices together."""
    return math.prod(self.shape) * self.chip.cores * self.slices


def parse(text: str, slices: int = 1) -> Topology:
  """The topology of 'v5e:4x4'.

  Raises:
    ValueError: no such chip, another form, a shape that no pod has, or a
      number of slices below 1.
  """
  kind, _, shape = text.partition(":")
  if kind not in CHIPS:
    raise ValueError(
      f"--topology={text}: there is no chip {kind!r}{suggest(kind, CHIPS)}; "
      f"the chips are {', '.join(CHIPS)}, a topology is one of them and a "
      f"shape, such as {EXAMPLES}"
    )
  axes = CHIPS[kind].axes
  if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or (
    shape.count("x") + 1 != axes
  ):
    raise ValueError(
      f"--topology={text}: the shape of {kind} has {axes} numbers, such as "
      f"{next(e for e in EXAMPLES.split(', ') if e.startswith(kind + ':'))}"
    )
  sizes = tuple(map(int, shape.split("x")))
  if sizes not in ((1, 1), (1, 1, 1)) and any(n % 2 for n in sizes[:2]):
    raise ValueError(
      f"--topology={text}: no pod has this shape; a host holds 2x2 chips, so "
      f"the first two numbers are even (or all are 1). Examples: {EXAMPLES}"
    )
  if slices < 1:
    raise ValueError(f"--slices={slices}: there must be at least 1 slice")
  return Topology(text, kind, sizes, slices)
