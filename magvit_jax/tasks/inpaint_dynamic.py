"""Dynamic inpainting: all but a box that moves to the right is given.

MAGVIT (arXiv:2212.05199): the box of the lines h/4..3h/4 and half of the
columns is black; it moves from the left edge in the first frame to the right
edge in the last. Known is all but the box that moves over the latent grid in
the same way, three quarters of it.
"""

import dataclasses
from collections.abc import Sequence

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """Three quarters of each frame are given, without the label."""

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …)."""
    return task_tables.blacked(
      video_shape, latent_shape, regions.around_sliding
    )


TINY = dict()
