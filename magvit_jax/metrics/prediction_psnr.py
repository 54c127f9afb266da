"""Frame prediction in pixels: PSNR on the frames that were not given, in dB.

Beside the prediction stand what a model must beat, the last given latent
frame repeated and decoded (`psnr_repeat`) and the last given frame itself
(`psnr_still`), and what it cannot pass: the tokenizer's own reconstruction
(`psnr_ceiling`).
"""

import dataclasses

import jax.numpy as jnp

from magvit_jax.metrics import averages
from magvit_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Metric:
  """PSNR per hidden frame, averaged over frames, then clips, then files.

  Attributes:
    files: number of files clips come from.
  """

  files: int

  def __post_init__(self):
    averages.check_files("prediction_psnr", self.files)

  def update(
    self,
    *,
    valid: Array,
    video: Array,
    predicted: Array,
    repeat: Array,
    still: Array,
    recon: Array,
    hidden: Array,
    file: Array,
    **_,
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      video, predicted, repeat, still, recon: float [b t h w c] in [-1,1].
      hidden: bool [b t], frames that were not given.
      file: int [b], index of each clip's file.

    Raises:
      ValueError: two videos differ in shape.
    """
    guesses = dict(
      psnr_predicted=predicted,
      psnr_repeat=repeat,
      psnr_still=still,
      psnr_ceiling=recon,
    )
    values = {}
    for name, guess in guesses.items():
      averages.check_videos("prediction_psnr", video, guess)
      frames = averages.psnr_per_frame(video, guess) * hidden
      count = jnp.maximum(jnp.sum(hidden, axis=1), 1)
      values[name] = jnp.sum(frames, axis=1) / count
    return averages.sums_by_file(values, file, valid, self.files)

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'psnr_predicted', 'psnr_repeat', 'psnr_still', 'psnr_ceiling'}."""
    return averages.means_of_files(sums)


TINY = dict(files=2)
