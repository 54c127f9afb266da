"""Pictures between uint8, as stored, and float32 in [-1, 1], as trained on."""

import numpy as np


def to_float(video: np.ndarray) -> np.ndarray:
  """uint8 [0, 255] to float32 [-1, 1], any shape."""
  return video.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(video: np.ndarray) -> np.ndarray:
  """float [-1, 1] to uint8 [0, 255], rounded and clipped, any shape."""
  scaled = (np.asarray(video, np.float32) + 1) * np.float32(127.5)
  return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def crop(
  video: np.ndarray, top: int, left: int, size: tuple[int, int]
) -> np.ndarray:
  """The window [t size c] of a video [t h w c]; a view, not a copy."""
  height, width = video.shape[1:3]
  if not (0 <= top <= height - size[0] and 0 <= left <= width - size[1]):
    raise ValueError(
      f"a {size[0]}x{size[1]} window at ({top}, {left}) does not lie inside "
      f"pictures of {height}x{width}"
    )
  return video[:, top : top + size[0], left : left + size[1]]


def corner(
  height: int, width: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
  """A uniformly random (top, left) for a window of `size`."""
  top = int(rng.integers(height - size[0] + 1))
  return top, int(rng.integers(width - size[1] + 1))
