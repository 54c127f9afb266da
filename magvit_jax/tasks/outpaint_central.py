"""Central outpainting: the middle of every frame is given, its frame is not.

MAGVIT (arXiv:2212.05199): the box h/4..3h/4 x w/4..3w/4, whose edges are
repeated outwards; known is the same box of the latent grid, a quarter of it.
"""

import dataclasses
from collections.abc import Sequence

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """A quarter of each frame is given, without the label."""

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …)."""
    return task_tables.edged(video_shape, latent_shape, regions.central)


TINY = dict()
