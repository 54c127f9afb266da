"""What the steps of all stages share: averages of weights, and the guard."""

import jax
import jax.numpy as jnp

from magvit_jax.stages import TrainState
from magvit_jax.types import Array, PyTree


def average(ema: PyTree, params: PyTree, decay: Array) -> PyTree:
  """decay * ema + (1 - decay) * params; buffers are copied."""

  def leaf(path, old, new):
    if str(path[-1].key).startswith("buffer_"):
      return new
    return old * decay + new * (1 - decay)

  return jax.tree_util.tree_map_with_path(leaf, ema, params)


def guard(finite: Array, new: TrainState, old: TrainState) -> TrainState:
  """`new` if all was finite, else `old`; the step counts either way."""
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  bad = jnp.where(finite, 0, old.extra["bad"] + 1)
  return kept._replace(step=old.step + 1, extra={**kept.extra, "bad": bad})
