"""The steps of decoding a clip as rows of a contact sheet."""

import numpy as np

from magvit_jax.report import sheets
from magvit_jax.tasks import regions

GREY = 128  # of what will be made anew,
SHOWN = 0.25  # and how much of the picture is seen through it


def rows(videos: np.ndarray, unknown: np.ndarray) -> list[sheets.Row]:
  """A row per step; what the next steps make anew is greyed out.

  Args:
    videos: uint8 [steps t h w 3], the ids of each step decoded.
    unknown: bool [steps T H W], those masked again after it.
  """
  hidden = on_pixels(unknown, videos.shape[1:4])[..., None]
  grey = SHOWN * videos + (1 - SHOWN) * GREY
  shown = np.where(hidden, grey.astype(np.uint8), videos)
  return [
    sheets.Row(f"step {k + 1}: {1 - still.mean():.0%} decided", video)
    for k, (video, still) in enumerate(zip(shown, unknown, strict=True))
  ]


def on_pixels(latents: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
  """bool [n T H W] of latents -> bool [n t h w] of their pixels."""
  t, h, w = shape
  stop = regions.spans(t, latents.shape[1])[1]
  frame = np.searchsorted(stop, np.arange(t), side="right")
  row = np.arange(h) * latents.shape[2] // h
  column = np.arange(w) * latents.shape[3] // w
  return latents[:, frame][:, :, row][:, :, :, column]
