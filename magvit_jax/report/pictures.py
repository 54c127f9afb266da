"""Pictures of clips: strips of frames, error maps and animations."""

import io

import numpy as np
from PIL import Image

ERROR_FACTOR = 4
MAX_FRAMES = 9  # more would make frames too small to judge
MAX_TILE = 256  # pixels; larger frames are shrunk for the page
GAP = 2
MARK = (217, 130, 43)  # colour of the bar on given frames
FPS = 8


def error_map(video: np.ndarray, recon: np.ndarray) -> np.ndarray:
  """Mean absolute difference over channels times `ERROR_FACTOR`, as grey.

  Args:
    video, recon: uint8 [t h w 3].

  Returns:
    uint8 [t h w 3]; white is a difference of 255 / ERROR_FACTOR or more.
  """
  difference = np.abs(video.astype(np.float32) - recon.astype(np.float32))
  grey = np.clip(difference.mean(-1) * ERROR_FACTOR, 0, 255).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=-1)


def row(frames: np.ndarray, count: int = MAX_FRAMES) -> bytes:
  """Frames [t h w 3] side by side, at most `count` of them spread evenly."""
  picked = np.linspace(0, len(frames) - 1, min(count, len(frames)))
  tiles = [_shrink(frames[round(k)]) for k in picked]
  h, w, _ = tiles[0].shape
  sheet = np.zeros((h, len(tiles) * (w + GAP) - GAP, 4), np.uint8)
  for k, tile in enumerate(tiles):
    left = k * (w + GAP)
    sheet[:, left : left + w] = np.dstack(
      [tile, np.full((h, w), 255, np.uint8)]
    )
  return _encode(Image.fromarray(sheet), "PNG", optimize=True)


def animation(*videos: np.ndarray) -> bytes:
  """Videos side by side as an endless lossless WebP.

  Args:
    *videos: uint8 [t h w 3], all of one shape.
  """
  frames = []
  for pictures in zip(*videos, strict=True):
    tiles = [_shrink(picture) for picture in pictures]
    gap = np.full((tiles[0].shape[0], GAP, 3), 128, np.uint8)
    spaced = [part for tile in tiles for part in (gap, tile)][1:]
    frames.append(Image.fromarray(np.hstack(spaced)))
  return _encode(
    frames[0],
    "WEBP",
    save_all=True,
    append_images=frames[1:],
    duration=round(1000 / FPS),
    loop=0,
    lossless=True,
  )


def _shrink(frame: np.ndarray) -> np.ndarray:
  h, w, _ = frame.shape
  scale = MAX_TILE / max(h, w)
  if scale >= 1:
    return frame
  size = (max(1, round(w * scale)), max(1, round(h * scale)))
  return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def _encode(picture: Image.Image, kind: str, **options) -> bytes:
  buffer = io.BytesIO()
  picture.save(buffer, kind, **options)
  return buffer.getvalue()
