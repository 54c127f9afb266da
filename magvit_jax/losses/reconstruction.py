"""Distances between a video and its reconstruction, [b t h w 3] in [-1,1].

Published weights for pixels in [0,1] convert: L2 by 1/4, L1 by 1/2.
"""

import jax.numpy as jnp

from magvit_jax.types import Array


def l1(video: Array, recon: Array) -> Array:
  """Mean absolute difference."""
  return jnp.mean(jnp.abs(recon - video))


def l2(video: Array, recon: Array) -> Array:
  """Mean squared difference."""
  return jnp.mean(jnp.square(recon - video))


LOSSES = {"loss_l1": l1, "loss_l2": l2}
