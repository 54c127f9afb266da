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
    whole = task_tables.identity(video_shape, latent_shape)
    return whole._replace(
      row=np.full_like(whole.row, -1),
      box=np.zeros_like(whole.box),
      label=np.bool_(True),
    )


TINY = dict()
