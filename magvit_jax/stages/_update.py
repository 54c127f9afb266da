"""What the steps of all stages share: copies and averages of weights, a guard.

The state holds float32 weights. With `param_dtype='bfloat16'` a step reads a
rounded copy of the matrices, made once, so that what devices exchange is half
as long; gradients are those at the copy, and the optimizer moves the float32
weights with them. EMA, checkpoints and exports never see the copy.
"""

import jax
import jax.numpy as jnp
import optax

from magvit_jax import tree_utils
from magvit_jax.stages import TrainState
from magvit_jax.types import Array, PyTree

PARAM_DTYPES = ("float32", "bfloat16")


def working_copy(params: PyTree, dtype: str) -> PyTree:
  """What a step computes with: matrices as `dtype`, all else as it is.

  Quantizers stay float32, as ids must not depend on rounding; so do vectors,
  which are small, and buffers.
  """
  if dtype == "float32":
    return params

  def leaf(path, x):
    *outer, name = tree_utils.path_name(path).split("/")
    kept = x.ndim < 2 or "quantizer" in outer or name.startswith("buffer_")
    return x if kept else x.astype(dtype)

  return jax.tree_util.tree_map_with_path(leaf, params)


def apply(
  tx: optax.GradientTransformation, grads: PyTree, opt: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
  """(params, opt) after an update of the optimizer."""
  with jax.named_scope("optimizer"):
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt


def average(ema: PyTree, params: PyTree, decay: Array) -> PyTree:
  """decay * ema + (1 - decay) * params; buffers are copied."""

  def leaf(path, old, new):
    if str(path[-1].key).startswith("buffer_"):
      return new
    return old * decay + new * (1 - decay)

  with jax.named_scope("ema"):
    return jax.tree_util.tree_map_with_path(leaf, ema, params)


def guard(finite: Array, new: TrainState, old: TrainState) -> TrainState:
  """`new` if all was finite, else `old`; the step counts either way."""
  with jax.named_scope("guard"):
    kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  bad = jnp.where(finite, 0, old.extra["bad"] + 1)
  return kept._replace(step=old.step + 1, extra={**kept.extra, "bad": bad})
