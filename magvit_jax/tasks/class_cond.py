"""Class-conditional generation: nothing of the clip is given but its class."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from magvit_jax.tasks import Tables
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """No pixel is seen, the condition clip is black, the label is given."""

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …)."""
    nothing = task_tables.blacked(
      video_shape, latent_shape, lambda shape: np.zeros(shape[:3], bool)
    )
    return nothing._replace(label=np.bool_(True))


TINY = dict()
