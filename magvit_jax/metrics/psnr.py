"""Peak signal-to-noise ratio of reconstructions, in dB.

Per frame, averaged over frames, then clips, then files with equal weight: a
long file does not outvote a short one, and one perfect frame cannot hide a
bad one inside a pooled error.
"""

import dataclasses

from magvit_jax.metrics import averages
from magvit_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Metric:
  """PSNR of `recon` against `video`, both in [-1,1] (the peak is 2).

  Attributes:
    files: number of files clips come from. Identical frames count 100 dB.
  """

  files: int

  def __post_init__(self):
    averages.check_files("psnr", self.files)

  def update(
    self, *, valid: Array, video: Array, recon: Array, file: Array, **_
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      video, recon: float [b t h w c] in [-1,1].
      file: int [b], index of each clip's file.

    Raises:
      ValueError: video and recon differ in shape.
    """
    averages.check_videos("psnr", video, recon)
    values = averages.psnr_per_frame(video, recon).mean(axis=1)
    return averages.sum_by_file(values, file, valid, self.files)

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'psnr': dB}."""
    return {"psnr": averages.mean_of_files(sums)}


TINY = dict(files=2)
