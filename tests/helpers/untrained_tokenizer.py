"""A tokenizer's workdir with drawn, untrained weights, to be exported."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers import tiny_generator
from magvit_jax import tokenizers
from magvit_jax.checkpoints import checkpointer
from magvit_jax.files import workdirs
from magvit_jax.stages import TrainState

STEP = 7


def write(folder):
  """Config and one checkpoint; float32 on CPUs, bfloat16 elsewhere."""
  stage = {**tiny_generator.tokenizer_stage(), "dtype": "auto"}
  folder.mkdir()
  config = tiny_generator.base(stage)
  config["data"] = {**config["data"], "root": "/home/somebody/films"}
  workdirs.write_config(folder, config)
  # Drawn rather than initialized: that would compile for longer than we test.
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype),
    tokenizers.abstract(tokenizers.build_tokenizer(stage)),
  )
  bad = {"bad": jnp.zeros((), jnp.int32)}
  state = TrainState(jnp.int32(STEP), {"gen": params}, {}, params, {}, bad)
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(STEP, state, force=True)
  saver.close()
  return folder
