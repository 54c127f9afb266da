"""Meshes and shardings: how a batch and a state lie on the devices."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from magvit_jax.types import Array

AXES = ("data", "fsdp", "context", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(
  data: int = -1, fsdp: int = 1, context: int = 1, tensor: int = 1
) -> Mesh:
  """The mesh of all devices; one of the four sizes may be -1 (what is left).

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  sizes = [data, fsdp, context, tensor]
  devices = jax.device_count()
  text = ", ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise ValueError(
      f"mesh ({text}): sizes are positive, and at most one of them is -1"
    )
  known = math.prod(s for s in sizes if s != -1)
  if devices % known or (-1 not in sizes and known != devices):
    raise ValueError(
      f"mesh ({text}) does not fit {devices} device(s): the sizes must "
      f"multiply to {devices}; set mesh.data=-1 to take what is left"
    )
  sizes = [devices // known if s == -1 else s for s in sizes]
  # Linen fails under Explicit axes, which are jax's default.
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The first axis is split over `data` and `fsdp`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def local_rows(batch: int, mesh: Mesh, name: str = "batch") -> slice:
  """The rows of a global batch that this process reads.

  Raises:
    ValueError: `batch` does not divide over the devices.
  """
  parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if batch < 1 or batch % parts or batch % jax.process_count():
    raise ValueError(
      f"{name} is {batch}; it must be a positive multiple of {parts} (mesh "
      f"data x fsdp) and of {jax.process_count()} (processes)"
    )
  rows = batch // jax.process_count()
  return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
  """This process's rows to global arrays, split over `data` and `fsdp`."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
    for name, rows in batch.items()
  }
