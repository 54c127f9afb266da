"""Interpolation: the first and the last frames are given.

MAGVIT (arXiv:2212.05199): what lies between goes linearly from the last given
frame of the start to the first one of the end. Known is each latent frame that
holds a given frame: half of a 4x16x16 grid, 40 % of a causal 5x16x16 one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """`frames` frames are given at each end, without the label.

  Attributes:
    frames: frames given at each end.
  """

  frames: int = 1

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …).

    Raises:
      ValueError: nothing is given, or no latent frame is left to fill in.
    """
    total, n = video_shape[0], self.frames
    number = np.arange(total)
    given = (number < n) | (number >= total - n)
    known = regions.touched(given, video_shape, latent_shape)
    if n < 1 or known.all():
      raise ValueError(
        f"interpolation: frames is {n}; at least 1 is given at each end, and "
        f"of the {latent_shape[0]} latent frames of a clip of {total} frames "
        "one must hold none of them"
      )
    whole = task_tables.identity(video_shape, latent_shape)
    share = np.clip((number - n + 1) / (total - 2 * n + 1), 0, 1)
    frame, blend = whole.frame.copy(), whole.blend.copy()
    frame[:, ~given] = [[n - 1], [total - n]]
    blend[:, ~given] = np.stack([1 - share, share])[:, ~given]
    seen = whole.seen & given[:, None, None]
    return whole._replace(frame=frame, blend=blend, seen=seen, known=known)


TINY = dict(frames=1)
