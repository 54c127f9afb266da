"""What two processes save and restore on meshes, for test_restore.py.

cd tests && python -m helpers.mesh_restore WHAT FOLDER PORT INDEX
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import sharding, tree_utils
from magvit_jax.checkpoints import (
  checkpointer,
  checksum,
  frozen_params,
  manifest,
)
from magvit_jax.distributed import clusters, initialize, processes
from magvit_jax.stages import TrainState

# Of 8 devices, 4 in each process.
MESHES = {
  "data": dict(data=8),
  "fsdp": dict(data=1, fsdp=8),
  "2x4": dict(data=2, fsdp=4),
  "4x2": dict(data=4, fsdp=2),
}
READ = [("2x4", "4x2"), ("fsdp", "data"), ("data", "fsdp")]


def state(step):
  """Numbers that depend on the step; random, so that each place has its own."""
  rng = np.random.default_rng(step)
  kernel, moment, average, seen = rng.random((4, 16, 64), np.float32)
  half = rng.normal(size=(8, 32)).astype(jnp.bfloat16)
  return TrainState(
    step=np.int32(step),
    params={"in": {"kernel": kernel}, "half": {"kernel": half}},
    opt=({"mu": {"kernel": moment}}, ()),
    ema={"in": {"kernel": average}, "half": {"kernel": half}},
    frozen={"vgg": {"kernel": seen}},
    extra={"bad": np.int32(step)},
  )


def abstract(mesh):
  """Shapes, laid out on a mesh."""
  shapes = jax.tree.map(jnp.asarray, state(0))
  return sharding.lay(jax.eval_shape(lambda: shapes), mesh)


def write(folder, mesh, steps=(1,)):
  """Checkpoints and frozen arrays from a mesh."""
  layout = jax.tree.map(lambda x: x.sharding, abstract(mesh))
  saver = checkpointer.Checkpointer(folder, every=1, keep=9)
  for step in steps:
    placed = processes.put(state(step), layout)
    if step == steps[0]:
      frozen_params.save(folder, placed.frozen)
    saver.save(step, placed)
  saver.close()


def read(folder, mesh, said=None):
  """The step, and what of a state is not as it was saved."""
  wanted = abstract(mesh)
  say = print if said is None else said.append
  saver = checkpointer.Checkpointer(folder, every=1, say=say)
  step, found = saver.restore(wanted)
  saver.close()
  wrong = differences(found._replace(frozen={}), state(step))
  layout = tree_utils.named(jax.tree.map(lambda x: x.sharding, wanted))
  wrong += [
    f"layout of {name}"
    for name, leaf in tree_utils.named(found._replace(frozen={})).items()
    if leaf.sharding != layout[name]
  ]
  return step, wrong


def read_parts(folder, mesh):
  """What of the frozen arrays and of weights read alone is not as saved."""
  wanted, saved = abstract(mesh), state(1)
  found = {
    "frozen": frozen_params.restore_arrays(folder, wanted.frozen),
    "params": checkpointer.load_params(folder, wanted.params, "params"),
    # Without a layout, as who loads a tokenizer asks for it.
    "ema": checkpointer.load_params(folder, jax.eval_shape(lambda: saved.ema)),
  }
  return differences(found, {name: getattr(saved, name) for name in found})


def differences(found, wanted):
  """Names of leaves of which this process has other bits than it should."""
  wrong = []
  whole = tree_utils.named(wanted)
  for name, leaf in tree_utils.named(found).items():
    for shard in leaf.addressable_shards:
      own = np.asarray(whole[name])[shard.index]
      if np.asarray(shard.data).tobytes() != own.tobytes():
        wrong.append(name)
        break
  return wrong


def cases(folder):
  """Results of what is written on one mesh and read on another."""
  meshes = {name: sharding.make_mesh(**m) for name, m in MESHES.items()}
  for name, _ in READ:
    write(folder / name, meshes[name])
  found = {f"{a} to {b}": read(folder / a, meshes[b]) for a, b in READ}
  found["one to 2x4"] = read(folder / "one", meshes["2x4"])
  found["parts"] = read_parts(folder / "2x4", meshes["4x2"])
  return found, meshes["2x4"]


def damaged(folder, mesh, index):
  """Both processes pass over what one of them finds damaged, and say it."""
  write(folder, mesh, (1, 2, 3))
  if index == 0:
    spoil(folder / "checkpoints" / "3" / "params")
  processes.gather("spoilt")
  said = []
  first = read(folder, mesh, said)
  load = checkpointer._load

  def fails(workdir, step, wanted):
    items = load(workdir, step, wanted)
    if index == 1 and step == 2 and "opt" in wanted:
      raise manifest.DamagedError("alone")
    return items

  checkpointer._load = fails
  return [first, read(folder, mesh, said), said]


def spoil(folder):
  """Flips a bit in the longest file."""
  files = [p for p in folder.rglob("*") if p.is_file()]
  path = max(files, key=lambda p: p.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def main(folder, index):
  told, mesh = cases(folder)
  told["damaged"] = damaged(folder / "damaged", mesh, index)
  layout = jax.tree.map(lambda x: x.sharding, abstract(mesh))
  placed = processes.put(state(1), layout)
  told["sums"] = [
    checksum.bits(placed.params),
    checksum.sha256(tree_utils.named(placed.params)),
  ]
  (folder / f"{index}.json").write_text(json.dumps(told))


if __name__ == "__main__":
  # The arrays are tiny, so that nothing of them would be split.
  sharding.SMALL = 16
  _, where, port, number = sys.argv[1:]
  with initialize.join(clusters.Place(f"127.0.0.1:{port}", 2, int(number))):
    main(pathlib.Path(where), int(number))
