"""Free mask: any pixels are given, the others are black.

A latent position is known if every pixel under it is seen; this is what sets
it apart from MAGVIT's tasks, whose known latents are drawn (regions.py). For
training the mask stands in the config; a user's own, from an array, an image
or a mask video, comes with the call (sampler.inpaint) and uses `from_seen`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from magvit_jax.tasks import Tables, regions
from magvit_jax.tasks import tables as task_tables

SEEN, HIDDEN = ".", "#"


@dataclasses.dataclass(frozen=True)
class Task:
  """What a coarse picture of every frame hides is not given.

  Attributes:
    mask: lines of one length, top to bottom; '#' hides and '.' gives a part
      of the frame. They are stretched to its size.
  """

  mask: tuple[str, ...]

  def __post_init__(self):
    lines = self.mask
    if (
      not lines
      or not lines[0]
      or len({len(line) for line in lines}) > 1
      or set("".join(lines)) - {SEEN, HIDDEN}
    ):
      raise ValueError(
        f"free_mask: mask is {lines!r}; it is lines of one length of "
        f"{SEEN!r} (given) and {HIDDEN!r} (hidden), such as ('..', '.#')"
      )

  def tables(
    self, video_shape: Sequence[int], latent_shape: Sequence[int]
  ) -> Tables:
    """Tables for clips (t, h, w, …) and latents (T, H, W, …)."""
    t, h, w = video_shape[:3]
    drawn = np.array([[place == SEEN for place in line] for line in self.mask])
    row = np.arange(h) * len(drawn) // h
    col = np.arange(w) * len(drawn[0]) // w
    seen = np.tile(drawn[row][:, col], (t, 1, 1))
    return from_seen(seen, video_shape, latent_shape)


def from_seen(
  seen: np.ndarray, video_shape: Sequence[int], latent_shape: Sequence[int]
) -> Tables:
  """Tables of any mask, bool [t h w]: the pixels that are given.

  Raises:
    ValueError: it has another shape.
  """
  if seen.shape != tuple(video_shape[:3]):
    raise ValueError(
      f"a mask of shape {seen.shape} does not fit clips of "
      f"{tuple(video_shape[:3])} (t, h, w)"
    )
  known = regions.covered(seen, video_shape, latent_shape)
  whole = task_tables.identity(video_shape, latent_shape)
  return whole._replace(seen=seen, known=known, black=np.bool_(True))


TINY = dict(mask=("..", ".#"))
