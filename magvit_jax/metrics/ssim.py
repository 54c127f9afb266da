"""Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004).

The standard form: an 11x11 Gaussian window of sigma 1.5, K1 = 0.01,
K2 = 0.03, only where the window lies inside the frame, biased moments. On
colour it is the mean over the channels.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from magvit_jax.metrics import averages
from magvit_jax.types import Array

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


def ssim_per_frame(a: Array, b: Array) -> Array:
  """SSIM of two videos in [-1,1], frame by frame.

  Args:
    a, b: float [b t h w c], pixels in [-1,1].

  Returns:
    float32 [b t], 1 for identical frames.

  Raises:
    ValueError: frames smaller than the window.
  """
  if min(a.shape[2:4]) < WINDOW:
    raise ValueError(
      f"metrics/ssim: frames are {a.shape[2]}x{a.shape[3]}, but its window "
      f"needs at least {WINDOW}x{WINDOW}; leave ssim out of eval.metrics"
    )
  a, b = ((x.astype(jnp.float32) + 1) / 2 for x in (a, b))
  mean_a, mean_b = _blur(a), _blur(b)
  var_a = _blur(a * a) - mean_a**2
  var_b = _blur(b * b) - mean_b**2
  covariance = _blur(a * b) - mean_a * mean_b
  luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
  structure = (2 * covariance + C2) / (var_a + var_b + C2)
  return jnp.mean(luminance * structure, axis=(2, 3, 4))


def _blur(x: Array) -> Array:
  """Gaussian window along lines, then columns: [… h w c] to [… h-10 w-10 c]."""
  offsets = np.arange(WINDOW) - WINDOW // 2
  taps = np.exp(-0.5 * (offsets / SIGMA) ** 2)
  taps = (taps / taps.sum()).astype(np.float32)
  h, w = x.shape[2] - WINDOW + 1, x.shape[3] - WINDOW + 1
  x = sum(tap * x[:, :, k : k + h] for k, tap in enumerate(taps))
  return sum(tap * x[:, :, :, k : k + w] for k, tap in enumerate(taps))


@dataclasses.dataclass(frozen=True)
class Metric:
  """SSIM of `recon` against `video`, averaged over frames, clips, files.

  Attributes:
    files: number of files clips come from.
  """

  files: int

  def __post_init__(self):
    averages.check_files("ssim", self.files)

  def update(
    self, *, valid: Array, video: Array, recon: Array, file: Array, **_
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      video, recon: float [b t h w c] in [-1,1], at least 11x11.
      file: int [b], index of each clip's file.

    Raises:
      ValueError: shapes differ, or frames are smaller than the window.
    """
    averages.check_videos("ssim", video, recon)
    values = ssim_per_frame(video, recon).mean(axis=1)
    return averages.sum_by_file(values, file, valid, self.files)

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'ssim': in [-1,1], 1 is identical}."""
    return {"ssim": averages.mean_of_files(sums)}


TINY = dict(files=2)
