"""A generator's workdir with drawn, untrained weights, made in a moment."""

import functools
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry, tokenizers
from magvit_jax.checkpoints import checkpointer, checksum, frozen_params
from magvit_jax.files import workdirs
from magvit_jax.stages import TrainState, _generator_model

TOKENIZER = {
  "backbone": {
    "name": "causal3d",
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "strides": ((2, 2, 2),),
    "patch": (2, 4, 4),
    "norm": "position",
  },
  "quantizer": {"name": "lfq", "bits": 4, "factors": 2},
  "dtype": "float32",
}
TRANSFORMER = {
  "name": "modern",
  "layers": 1,
  "width": 24,
  "heads": 2,
  "hidden": 32,
}
TASKS = {
  "class_cond": {"weight": 1.0},
  "frame_prediction": {"frames": 1, "weight": 1.0},
  "frame_prediction_5": {
    "name": "frame_prediction",
    "frames": 5,
    "weight": 1.0,
  },
  "told": {
    "name": "class_cond_frame_prediction",
    "frames": 1,
    "weight": 1.0,
  },
  "interpolation": {"weight": 1.0},
  "outpaint_central": {"weight": 1.0},
  "inpaint_central": {"weight": 1.0},
}
CLIPS = {"shape": (9, 16, 24, 3), "labels": ("cat", "dog", "7")}
STAGE = {
  "name": "generator",
  "generator": {
    "name": "masked",
    "transformer": TRANSFORMER,
    "condition": "hard",
  },
  "tasks": TASKS,
  "sampling": {"steps": 3, "choice_temperature": 2.0},
  "dtype": "float32",
}
DATA = {"name": "moving_digits", "frames": 9, "size": (16, 24)}
EVALS = {
  "eval_cross_entropy": 2.5,
  "eval_cross_entropy_unigram": 3.25,
  "eval_psnr_predicted": 20.0,
  "eval_psnr_repeat": 18.5,
  "eval_psnr_ceiling": 25.0,
}


@functools.cache
def folder() -> pathlib.Path:
  """The workdir, made once for all test files; not to be changed."""
  path = pathlib.Path(tempfile.mkdtemp(prefix="magvit_jax_toy_")) / "run"
  return write(path)


def write(path: pathlib.Path, **changes) -> pathlib.Path:
  """Writes config, one checkpoint, frozen weights and some metrics."""
  path.mkdir(parents=True)
  config = {
    "seed": 0,
    "steps": 4,
    "batch": 2,
    "stage": STAGE,
    "data": {**DATA, "eval_clips": 5},
    "clips": CLIPS,
    "tokenizer": {"workdir": str(path / "nowhere"), **TOKENIZER},
    **changes,
  }
  args = frozen_params.stage_args(config)
  rest = {k: STAGE[k] for k in ("generator", "tasks", "dtype")}
  net = _generator_model.make_net(**rest, **args)
  weights = drawn(tokenizers.abstract(net.tokenizer), 0)
  config["tokenizer"]["fingerprint"] = checksum.fingerprint(weights)
  state = TrainState(
    step=jnp.asarray(4, jnp.int32),
    params={"gen": {"unused": jnp.zeros(())}},
    opt={"count": jnp.zeros((), jnp.int32)},
    ema=drawn(abstract(net), 1),
    frozen={},
    extra={"bad": jnp.zeros((), jnp.int32)},
  )
  saver = checkpointer.Checkpointer(path, every=1, keep=1)
  saver.save(4, state)
  saver.close()
  frozen_params.save(path, {"tokenizer": weights})
  workdirs.write_config(path, registry.plain(config))
  row = {"step": 4, "kind": "eval", **EVALS}
  (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
  return path


def abstract(net):
  """Shapes of the generator's weights."""
  return jax.eval_shape(lambda: _generator_model.init(net, jax.random.key(0)))


def drawn(tree, seed):
  """Weights drawn rather than initialised, which would compile for long."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), tree
  )


def clip(frames=9, seed=0):
  """uint8 [frames 16 24 3]."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (frames, 2, 3, 3), np.uint8)
  return coarse.repeat(8, axis=1).repeat(8, axis=2)
