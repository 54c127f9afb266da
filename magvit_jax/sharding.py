"""Meshes and shardings: how a batch and a state lie on the devices."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from magvit_jax.types import Array

AXES = ("data", "fsdp", "context", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  context: int = 1,
  tensor: int = 1,
  *,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """The mesh of all devices; one of the four sizes may be -1 (what is left).

  Several slices lie along `data`: gradients alone cross the slow network.

  Args:
    data: copies of the state; the batch is split over them.
    fsdp: parts of the state; the batch is split over them too.
    context: parts of an example.
    tensor: parts of a layer.
    devices: all that JAX sees, or those of a topology to plan for.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or `data`
      is not a multiple of the slices.
  """
  sizes = [data, fsdp, context, tensor]
  found = jax.devices() if devices is None else list(devices)
  devices = len(found)
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
  slices = len({getattr(d, "slice_index", None) for d in found})
  # Linen fails under Explicit axes, which are jax's default.
  auto = (AxisType.Auto,) * len(AXES)
  if slices == 1:
    return jax.make_mesh(sizes, AXES, axis_types=auto, devices=found)
  if sizes[0] % slices:
    raise ValueError(
      f"mesh.data is {sizes[0]}; it must be a multiple of the {slices} slices"
    )
  grid = mesh_utils.create_hybrid_device_mesh(
    (sizes[0] // slices, *sizes[1:]), (slices, 1, 1, 1), found
  )
  return Mesh(grid, AXES, axis_types=auto)


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
