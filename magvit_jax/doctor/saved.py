"""Checkpoints read as they were saved, without the network they are of."""

import pathlib

import jax
from orbax.checkpoint import v1 as ocp

from magvit_jax import checkpoint, checksum
from magvit_jax.types import PyTree


def faults(workdir: str | pathlib.Path) -> dict[int, str]:
  """By step, oldest first: what is wrong with a checkpoint, '' if nothing.

  Every array is read; one item of one checkpoint is in memory at a time.
  """
  return {s: _fault(workdir, s) for s in checkpoint.steps(workdir)}


def read(workdir: str | pathlib.Path, step: int, item: str) -> PyTree:
  """An item of a checkpoint on the first device, {} if it was not saved."""
  path = _path(workdir, step)
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])

  def leaf(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  metadata = ocp.checkpointables_metadata(path).metadata
  if item not in metadata:
    return {}
  abstract = jax.tree.map(leaf, metadata[item])
  return ocp.load_checkpointables(path, {item: abstract})[item]


def _fault(workdir: str | pathlib.Path, step: int) -> str:
  # Damage comes as whatever Orbax or TensorStore meets first, as in
  # checkpoint.py: each means the same here.
  try:
    sums = read(workdir, step, "loop")["checksum"]
    wrong = [
      name
      for name, wanted in sums.items()
      if checksum.bits(read(workdir, step, name)) != int(wanted)
    ]
  except Exception as error:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
  if wrong:
    return f"{', '.join(wrong)} not as saved (checksum)"
  return ""


def _path(workdir: str | pathlib.Path, step: int) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / "checkpoints" / str(step)
