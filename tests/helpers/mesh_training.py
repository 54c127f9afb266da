"""Trains on 8 fake devices and writes what came of it, for test_meshes.py.

cd tests && python -m helpers.mesh_training FOLDER
"""

import json
import math
import pathlib
import shutil
import sys

import jax
import numpy as np
import test_stage_tokenizer

from helpers import tiny_generator, toy_training
from magvit_jax import sharding, tokenizers, tree_utils
from magvit_jax.distributed import processes
from magvit_jax.training import loop

# LLVM's optimisation is most of a compilation, and of no use here.
XLA_FLAGS = (
  "--xla_force_host_platform_device_count=8 "
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
STEPS = 3
BATCH = 8
MESHES = {
  "one": dict(data=1),
  "data": dict(data=8),
  "fsdp": dict(data=2, fsdp=4),
  "tensor": dict(data=2, fsdp=2, tensor=2),
  "context": dict(data=4, context=2),
}
# Of two processes with 4 devices each: all parts of a weight lie on both.
TWO = dict(data=1, fsdp=8)
WEIGHED = ("one", "data")  # whose weights are written too
BACKBONE = dict(
  name="causal3d",
  patch=(2, 4, 4),
  width=16,
  multipliers=(1,),
  blocks=1,
  strides=(),
  block="mixer",
  norm="position",
)
WEIGHTS = dict(
  **test_stage_tokenizer.GEN, d_adversarial=1.0, d_r1=1.0, d_lecam=0.1
)
# Of the runs through the loop: one, and another that takes over its step 2.
LOOP = dict(batch=8, stage=dict(width=8), mesh=dict(data=-1, fsdp=4))
LOOP["eval"] = dict(batch=8)
OTHER = dict(data=-1, fsdp=2, tensor=2)


def tokenizer():
  """A GAN stage, no frozen arrays, and a batch of unlike clips."""
  # Adam divides a gradient by its size, rounding errors too; eps stops that.
  optim = dict(name="adam", lr=1e-2, eps=1e-3, schedule="constant")
  stage = test_stage_tokenizer.build(
    backbone=BACKBONE,
    discriminator=dict(name="patch3d", width=8, layers=1),
    weights=WEIGHTS,
    ramps={},
    optim=optim,
  )
  rng = np.random.default_rng(0)
  video = rng.uniform(-1, 1, (BATCH, 3, 16, 16, 3)).astype(np.float32)
  video *= np.linspace(0.2, 1, BATCH, dtype=np.float32)[
    :, None, None, None, None
  ]
  return stage, {}, {"video": video, "label": np.zeros(BATCH, np.int32)}


def generator():
  """A generator stage on an untrained tokenizer."""
  optim = dict(name="adamw", lr=1e-2, eps=1e-3, warmup=1, clip=1.0)
  stage = tiny_generator.stage(optim=optim)
  module = tokenizers.build_tokenizer(tiny_generator.TOKENIZER)
  arrays = drawn({"tokenizer": tokenizers.abstract(module)})
  # Of seed 0 one latent is 2e-7: which id it becomes depends on the sums.
  return stage, arrays, tiny_generator.batch(BATCH, seed=1)


def drawn(shapes):
  """Arrays as init would make them, without its long compilation."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    if x.ndim < 2:
      return np.full(x.shape, path[-1].key == "scale", x.dtype)
    size = np.prod(x.shape[:-1]) ** -0.5
    return rng.normal(0, size, x.shape).astype(x.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def train(stage, arrays, batch, sizes, weights=None):
  """The metrics of some steps on a mesh, and what the devices hold.

  The weights after them are written to the file `weights`.
  """
  devices = jax.devices()[: math.prod(sizes.values())]
  mesh = sharding.make_mesh(**sizes, devices=devices)
  key = jax.random.key(1)
  rows = sharding.local_rows(BATCH, mesh)
  own = {name: array[rows] for name, array in batch.items()}
  batch = sharding.put_batch(own, mesh)
  abstract = sharding.lay(jax.eval_shape(stage.init, key, batch, arrays), mesh)
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
  params = drawn(abstract.params)
  state = state._replace(params=params, ema=params["gen"], frozen=arrays)
  state = processes.put(state, jax.tree.map(lambda x: x.sharding, abstract))
  advance = loop.train_program(stage, abstract)
  curve = []
  for _ in range(STEPS):
    state, metrics = advance(state, batch, key)
    curve.append({k: float(v) for k, v in metrics.items()})
  if weights:
    whole = jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))
    found = tree_utils.named(jax.device_get(whole(state.params)))
    if jax.process_index() == 0:
      np.savez(weights, **found)
  return {
    "curve": curve,
    "shards": shards(state),
    "video": batch["video"].addressable_shards[0].data.shape,
    "table": sharding.table(abstract),
  }


def shards(state):
  """Shape of a leaf, and of what the first device holds of it, by name."""
  return {
    name: (leaf.shape, leaf.addressable_shards[0].data.shape)
    for name, leaf in tree_utils.named(state).items()
  }


def stages(folder):
  """Every mesh, for both stages."""
  for make in (generator, tokenizer):
    parts = make()
    for name, sizes in MESHES.items():
      path = folder / f"{make.__name__}-{name}.json"
      weights = path.with_suffix(".npz") if name in WEIGHED else None
      path.write_text(json.dumps(train(*parts, sizes, weights)))


def through_the_loop(folder):
  """A whole run, and one that goes on from its step 2 on another mesh."""
  whole, other = folder / "whole", folder / "other"
  toy_training.train(whole, steps=4, **LOOP)
  shutil.copytree(whole, other)
  shutil.rmtree(other / "checkpoints" / "4")
  (other / "DONE").unlink()
  toy_training.train(other, "force", steps=4, **{**LOOP, "mesh": OTHER})


def main(folder):
  # The nets are tiny, so that nothing of them would be split.
  sharding.SMALL = 16
  through_the_loop(folder)
  stages(folder)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
