"""Dynamic outpainting: an upright strip is given that moves to the right.

MAGVIT (arXiv:2212.05199): half of the columns, from the left edge in the first
frame to the right edge in the last; what is outside is black. Known is the
strip that moves over the latent grid in the same way, half of it.
"""

import dataclasses
from collections.abc import Sequence

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """A moving half of the columns is given, without the label."""

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …)."""
    return task_tables.blacked(video_shape, latent_shape, regions.sliding)


TINY = dict()
