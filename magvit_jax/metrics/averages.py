"""Averages that give every file the same weight, however many clips it has.

A metric reduces a clip to one number; the sums are kept per file, so that
adding them over batches and devices and then averaging over files is exact.
"""

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.types import Array

PSNR_CAP = 100.0  # dB, the value of identical frames


def psnr_per_frame(a: Array, b: Array) -> Array:
  """PSNR of two videos in [-1,1], frame by frame.

  Args:
    a, b: float [b t h w c], pixels in [-1,1], so that the peak is 2.

  Returns:
    float32 [b t], dB, at most `PSNR_CAP` (a mean squared error of 1e-10 of
    the squared peak; one grey level in one channel of one pixel of a 64x64
    frame is 12 times that).
  """
  difference = (a.astype(jnp.float32) - b.astype(jnp.float32)) / 2
  mse = jnp.mean(jnp.square(difference), axis=(2, 3, 4))
  return -10 * jnp.log10(jnp.maximum(mse, 10 ** (-PSNR_CAP / 10)))


def check_files(metric: str, files: int) -> None:
  """Raises ValueError unless there is at least one file to average over."""
  if files < 1:
    raise ValueError(
      f"metrics/{metric}: files is {files}, but it averages over at least one "
      "file; pass the number of files of the source"
    )


def check_videos(metric: str, video: Array, recon: Array) -> None:
  """Raises ValueError unless both are [b t h w c] of the same shape."""
  if video.ndim != 5 or video.shape != recon.shape:
    raise ValueError(
      f"metrics/{metric}: video is {video.shape} and recon {recon.shape}, but "
      "both must be [b t h w c] of one shape; crop the padding off recon"
    )


def sum_by_file(
  values: Array, file: Array, valid: Array, files: int
) -> dict[str, Array]:
  """Sums one value per clip into its file.

  Args:
    values: float [b], one number per clip.
    file: int [b], index of the clip's file, below `files`.
    valid: bool [b]; rows that are False add nothing, even if they are NaN.
    files: number of files.

  Returns:
    {'total': float32 [files], 'count': float32 [files]}.
  """
  values = jnp.where(valid, values.astype(jnp.float32), 0.0)
  return {
    "total": jax.ops.segment_sum(values, file, files),
    "count": jax.ops.segment_sum(valid.astype(jnp.float32), file, files),
  }


def mean_of_files(sums: dict[str, Array]) -> float:
  """Mean over the files that have clips of their means; NaN without clips."""
  total = np.asarray(sums["total"], np.float64)
  count = np.asarray(sums["count"], np.float64)
  seen = count > 0
  if not seen.any():
    return float("nan")
  return float(np.mean(total[seen] / count[seen]))


def sums_by_file(
  values: dict[str, Array], file: Array, valid: Array, files: int
) -> dict[str, Array]:
  """`sum_by_file` of several results, as one flat dict."""
  return {
    f"{name}_{kind}": array
    for name, each in values.items()
    for kind, array in sum_by_file(each, file, valid, files).items()
  }


def means_of_files(sums: dict[str, Array]) -> dict[str, float]:
  """`mean_of_files` of each result of `sums_by_file`."""
  names = [key.removesuffix("_total") for key in sums if key[-6:] == "_total"]
  return {
    name: mean_of_files({k: sums[f"{name}_{k}"] for k in ("total", "count")})
    for name in names
  }
