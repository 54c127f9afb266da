"""Frame prediction: the first frames are given, the rest repeats the last.

The padding and the latent geometry are those of MAGVIT (arXiv:2212.05199): a
latent frame is known as soon as it holds a given frame. A causal tokenizer
should be given 1 + k * st frames, which fill k + 1 latent frames exactly.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables


@dataclasses.dataclass(frozen=True)
class Task:
  """The first `frames` frames are given, without the label.

  Attributes:
    frames: frames given.
  """

  frames: int = 1

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …).

    Raises:
      ValueError: nothing is given, or no latent frame is left to predict.
    """
    total, latents = video_shape[0], latent_shape[0]
    most = int(regions.spans(total, latents)[0][-1])
    if not 1 <= self.frames <= most:
      raise ValueError(
        f"frame_prediction: frames is {self.frames}; a clip of {total} frames "
        f"in {latents} latent frames needs at least 1 and at most {most}"
      )
    whole = task_tables.identity(video_shape, latent_shape)
    frame = np.minimum(whole.frame, self.frames - 1)
    given = np.arange(total) < self.frames
    return whole._replace(
      frame=frame,
      seen=whole.seen & given[:, None, None],
      known=regions.touched(given, video_shape, latent_shape),
    )


TINY = dict(frames=1)
