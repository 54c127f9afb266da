"""The rate of a tokenizer: bits per pixel of its ids.

`bits_per_pixel` is what ids cost at fixed length (log2 of the vocabulary);
`bits_used_per_pixel` what an ideal entropy coder of single ids needs on the
clips at hand. A pixel is one position of one frame, whatever its channels.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from magvit_jax.metrics import histograms
from magvit_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Metric:
  """Bits per pixel of `ids`, nominal and by their empirical entropy.

  Attributes:
    sizes: number of ids per factor.
  """

  sizes: tuple[int, ...]

  def __post_init__(self):
    histograms.check_sizes("bits", self.sizes)

  def update(
    self, *, valid: Array, video: Array, ids: Array, **_
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      video: float [b t h w c]; only its shape is used.
      ids: int [b … f].
    """
    _, t, h, w, _ = video.shape
    positions = np.prod(ids.shape[1:-1]) / (t * h * w)
    clips = jnp.sum(valid.astype(jnp.float32))
    return {
      "clips": clips,
      "positions_per_pixel": clips * float(positions),
      **histograms.count_ids("bits", ids, valid, self.sizes),
    }

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'bits_per_pixel', 'bits_used_per_pixel'}, NaN without clips."""
    clips = float(sums["clips"])
    positions = float(sums["positions_per_pixel"]) / clips if clips else np.nan
    used = sum(
      histograms.entropy(sums[f"ids_{k}"]) for k in range(len(self.sizes))
    )
    return {
      "bits_per_pixel": float(positions * np.sum(np.log2(self.sizes))),
      "bits_used_per_pixel": float(positions * used / np.log(2)),
    }


TINY = dict(sizes=(8, 5))
