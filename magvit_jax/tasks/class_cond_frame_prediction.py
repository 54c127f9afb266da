"""Class-conditional frame prediction: frame prediction with the label given."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from magvit_jax.tasks import Tables, frame_prediction


@dataclasses.dataclass(frozen=True)
class Task(frame_prediction.Task):
  """The first `frames` frames and the label are given."""

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables of frame_prediction, whose errors it raises, with the label."""
    own = super().tables(video_shape, latent_shape)
    return own._replace(label=np.bool_(True))


TINY = dict(frames=1)
