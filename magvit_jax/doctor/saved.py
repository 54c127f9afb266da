"""Checkpoints read as they were saved, without the network they are of."""

import jax
from orbax.checkpoint import v1 as ocp

from magvit_jax.checkpoints import checkpointer, checksum, manifest
from magvit_jax.files import paths
from magvit_jax.types import PyTree


def faults(workdir: paths.Name) -> dict[int, str]:
  """By step, oldest first: what is wrong with a checkpoint, '' if nothing.

  Every file and every array is read; one item of one checkpoint is in memory at
  a time.
  """
  found = {s: _fault(workdir, s) for s in checkpointer.steps(workdir)}
  # A run that goes on removes old ones while they are read here.
  left = checkpointer.steps(workdir)
  return {step: fault for step, fault in found.items() if step in left}


def read(workdir: paths.Name, step: int, item: str) -> PyTree:
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


def _fault(workdir: paths.Name, step: int) -> str:
  # Damage comes as whatever Orbax or TensorStore meets first, as in
  # checkpoint.py: each means the same here.
  try:
    manifest.check(_path(workdir, step))
    sums = read(workdir, step, "loop")["checksum"]
    wrong = [
      name
      for name, wanted in sums.items()
      if checksum.bits(read(workdir, step, name)) != int(wanted)
    ]
  except manifest.DamagedError as error:
    return str(error)
  except Exception as error:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
  if wrong:
    return f"{', '.join(wrong)} not as saved (checksum)"
  return ""


def _path(workdir: paths.Name, step: int) -> paths.Path:
  return paths.absolute(workdir) / "checkpoints" / str(step)
