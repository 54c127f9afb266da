"""Optimizers: schedules, decay on matrices only, buffers left alone.

Leaves named 'buffer_…' (EMA codebooks and the like) are written by the
component that owns them: here they get no gradient, decay or moments.
"""

import jax
import jax.numpy as jnp
import optax

from magvit_jax import messages, tree_utils
from magvit_jax.types import Array, PyTree

# Leaves that are not decayed even where stacked layers make them matrices, and
# the tables of transformers/bert.py: BERT's recipe decays kernels only.
UNDECAYED = ("bias", "scale", "embedding", "position")

# steps -> a schedule that starts at 1.
SHAPES = {
  "constant": lambda steps: optax.constant_schedule(1.0),
  "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
  "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
}


def make_schedule(
  steps: int, *, lr: float, warmup: int = 0, schedule: str = "cosine"
) -> optax.Schedule:
  """The learning rate: a linear warm-up into one of `SHAPES`.

  Update number 0 gets lr / warmup rather than 0, so that no step is wasted;
  the shape runs over the steps after the warm-up.

  Raises:
    ValueError: unknown `schedule`, or a warm-up longer than the run.
  """
  messages.check_choice("optim.schedule", schedule, SHAPES)
  if not 0 <= warmup <= steps:
    raise ValueError(
      f"optim.warmup is {warmup}; it must lie between 0 and the {steps} steps "
      "of the run: shorten the warm-up or train longer"
    )

  shape = SHAPES[schedule](max(steps - warmup, 1))

  def rate(step):
    up = (jnp.asarray(step, jnp.float32) + 1.0) / max(warmup, 1)
    return lr * jnp.minimum(up, 1.0) * shape(jnp.maximum(step - warmup, 0))

  return rate


def make(
  steps: int,
  *,
  name: str = "adamw",
  lr: float,
  warmup: int = 0,
  schedule: str = "cosine",
  b1: float = 0.9,
  b2: float = 0.99,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip: float = 0.0,
) -> optax.GradientTransformation:
  """Adam with a schedule, for trees that may hold buffers.

  Args:
    steps: length of the run, in updates.
    name: 'adam' (no decay) or 'adamw' (decoupled decay).
    lr: peak learning rate.
    warmup: updates of linear warm-up.
    schedule: 'constant', 'cosine' or 'linear', after the warm-up.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: share of each matrix (ndim > 1) removed per unit of learning
      rate; leaves named in UNDECAYED, such as biases and scales, are not
      decayed.
    clip: largest global norm of the gradient; 0 does not clip.

  Raises:
    ValueError: a choice that does not exist or does not fit.
  """
  messages.check_choice("optim.name", name, ("adam", "adamw"))
  if name == "adam" and weight_decay:
    raise ValueError(
      f"optim.weight_decay is {weight_decay} but optim.name is 'adam', which "
      "has none; use name='adamw' or weight_decay=0.0"
    )
  rate = make_schedule(steps, lr=lr, warmup=warmup, schedule=schedule)
  chain = optax.chain(
    optax.clip_by_global_norm(clip) if clip else optax.identity(),
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    optax.add_decayed_weights(weight_decay, mask=_matrices)
    if weight_decay
    else optax.identity(),
    optax.scale_by_learning_rate(rate),
  )
  return optax.partition(
    {"train": chain, "buffer": optax.set_to_zero()}, _labels
  )


def ema_decay(decay: float, step: Array, warmup: bool = True) -> Array:
  """Decay of the moving average after `step` updates.

  min(decay, (1 + step) / (10 + step)) with `warmup`, so that a short run does
  not keep its initial weights; `decay` at every step without.
  """
  if not warmup:
    return jnp.asarray(decay, jnp.float32)
  t = jnp.asarray(step, jnp.float32)
  return jnp.minimum(decay, (1.0 + t) / (10.0 + t))


def _labels(params: PyTree) -> PyTree:
  def label(path, _):
    leaf = tree_utils.path_name(path).rsplit("/", 1)[-1]
    return "buffer" if leaf.startswith("buffer_") else "train"

  return jax.tree_util.tree_map_with_path(label, params)


def _matrices(params: PyTree) -> PyTree:
  def decayed(path, p):
    leaf = tree_utils.path_name(path).rsplit("/", 1)[-1]
    return p.ndim > 1 and leaf not in UNDECAYED

  return jax.tree_util.tree_map_with_path(decayed, params)
