"""The floor a tokenizer must clear: PSNR of box means at its token grid.

Each token is given the mean colour of the pixels it stands for, unquantized.
A tokenizer that does not beat this has learnt less than down-sampling.
"""

import dataclasses

import jax.numpy as jnp

from magvit_jax.metrics import averages
from magvit_jax.types import Array


def box_means(video: Array, grid: tuple[int, ...], causal: bool) -> Array:
  """Replaces every pixel by the mean of its box.

  Args:
    video: float [b t h w c].
    grid: (T, H, W), boxes along time, lines and columns.
    causal: the first frame has a box of its own and the other t-1 frames
      share T-1 boxes, as in causal tokenizers; else t frames share T boxes.

  Returns:
    float32 [b t h w c].

  Raises:
    ValueError: the grid does not divide the video.
  """
  video = video.astype(jnp.float32)
  if not causal:
    return _means(video, grid)
  first = _means(video[:, :1], (1, *grid[1:]))
  if video.shape[1] == grid[0] == 1:
    return first
  rest = _means(video[:, 1:], (grid[0] - 1, *grid[1:]))
  return jnp.concatenate([first, rest], axis=1)


def _means(video: Array, grid: tuple[int, ...]) -> Array:
  b, *size, c = video.shape
  if any(g < 1 or s % g for s, g in zip(size, grid, strict=True)):
    raise ValueError(
      f"metrics/box_means: {tuple(size)} frames, lines and columns do not "
      f"divide into {tuple(grid)} boxes (a causal grid counts without its "
      "first frame; set causal=False if the tokenizer is not causal)"
    )
  (t, h, w), (T, H, W) = size, grid
  boxes = video.reshape(b, T, t // T, H, h // H, W, w // W, c)
  means = boxes.mean(axis=(2, 4, 6), keepdims=True)
  return jnp.broadcast_to(means, boxes.shape).reshape(video.shape)


@dataclasses.dataclass(frozen=True)
class Metric:
  """PSNR of box means of `video` at the grid of `ids`, averaged as `psnr` is.

  Attributes:
    files: number of files clips come from.
    causal: whether the first frame has boxes of its own.
  """

  files: int
  causal: bool = True

  def __post_init__(self):
    averages.check_files("box_means", self.files)

  def update(
    self, *, valid: Array, video: Array, ids: Array, file: Array, **_
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      video: float [b t h w c] in [-1,1].
      ids: int [b T H W f]; only its shape is used.
      file: int [b], index of each clip's file.

    Raises:
      ValueError: ids are not on a grid, or the grid does not divide video.
    """
    if ids.ndim != 5:
      raise ValueError(
        f"metrics/box_means: ids are {ids.shape}, but boxes need a grid "
        "[b T H W f]; leave the metric out for tokens without a grid"
      )
    means = box_means(video, ids.shape[1:4], self.causal)
    values = averages.psnr_per_frame(video, means).mean(axis=1)
    return averages.sum_by_file(values, file, valid, self.files)

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'psnr_box': dB}."""
    return {"psnr_box": averages.mean_of_files(sums)}


TINY = dict(files=2)
