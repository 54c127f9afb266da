"""What the backward pass of a layer finds kept; see REMAT in nn/stack.py."""

from jax.ad_checkpoint import checkpoint_name

from magvit_jax.types import Array

NAME = "kept"


def keep(x: Array) -> Array:
  """x, which remat 'dots' keeps if the backward pass reads it."""
  return checkpoint_name(x, NAME)
