"""Horizontal outpainting: a level strip of every frame is given.

MAGVIT (arXiv:2212.05199): the lines h/4..3h/4, whose edges are repeated
outwards; known is the same strip of the latent grid, half of it.
"""

import dataclasses
from collections.abc import Sequence

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """The middle half of the lines is given, without the label."""

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …)."""
    return task_tables.edged(video_shape, latent_shape, regions.horizontal)


TINY = dict()
