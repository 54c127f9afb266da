"""Videos and ids as bytes that a browser shows."""

import io
import pathlib
import tempfile
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from PIL import Image

from magvit_jax.data import video_write
from magvit_jax.report import sheets

LEAST = 256  # pixels of the longer side; smaller videos are enlarged
MOST_LATENTS = 5  # latent frames in a picture of ids
TILE = 160  # pixels of the longer side of each, at least
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Film(NamedTuple):
  """A video, or the picture that a video of one frame is.

  Attributes:
    content: the bytes of a file.
    mime: their kind.
  """

  content: bytes
  mime: str


def film(video: np.ndarray, fps: Fraction) -> Film:
  """A video uint8 [t h w 3] as H.264, one frame as PNG."""
  if len(video) == 1:
    return Film(png(Image.fromarray(shown(video[0]))), "image/png")
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "film.mp4"
    video_write.write_video(path, map(shown, video), fps)
    return Film(path.read_bytes(), "video/mp4")


def shown(picture: np.ndarray) -> np.ndarray:
  """A picture uint8 [h w 3] as browsers play it: not tiny, of even size.

  H.264 of odd pictures keeps chroma whole, which many browsers do not play.
  """
  h, w = picture.shape[:2]
  scale = max(1, -(-LEAST // max(h, w)))
  large = picture.repeat(scale, 0).repeat(scale, 1)
  odd = [(0, side % 2) for side in large.shape[:2]]
  return np.pad(large, (*odd, (0, 0)), mode="edge")


def colours(ids: np.ndarray) -> np.ndarray:
  """A colour for each token: equal ids, equal colours.

  Args:
    ids: integers [… f]; all factors of a position make one colour.

  Returns:
    uint8 [… 3], as if drawn at random for each id (the mix of splitmix64).
  """
  mixed = np.zeros(ids.shape[:-1], np.uint64)
  for factor in np.moveaxis(np.asarray(ids).astype(np.uint64), -1, 0):
    mixed = (mixed ^ factor) + np.uint64(_MIX[0])
    for shift, times in ((30, _MIX[1]), (27, _MIX[2])):
      mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(times)
    mixed ^= mixed >> np.uint64(31)
  return np.stack(
    [(mixed >> np.uint64(8 * k)).astype(np.uint8) for k in range(3)], axis=-1
  )


def token_picture(ids: np.ndarray) -> bytes:
  """A PNG of ids [T H W f]: a tile for each latent frame, spread over time."""
  scale = max(1, -(-TILE // max(ids.shape[1:3])))
  tiles = colours(ids).repeat(scale, axis=1).repeat(scale, axis=2)
  return png(sheets.contact_sheet([sheets.Row("", tiles)], MOST_LATENTS))


def png(picture: Image.Image) -> bytes:
  """The bytes of a picture."""
  buffer = io.BytesIO()
  picture.save(buffer, "PNG")
  return buffer.getvalue()
