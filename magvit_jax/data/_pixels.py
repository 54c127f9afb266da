"""Decoded pictures to upright RGB of one size, for video frames and images.

- The display matrix of a container and the EXIF tag of an image turn and
  mirror, in all eight orientations.
- Transparent pixels are composited on black, as video players do.
- Samples of more than 8 bits are scaled to 8; gray is repeated in 3 channels.
"""

import struct
from typing import NamedTuple

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
from av.sidedata.sidedata import Type


class Orientation(NamedTuple):
  """How stored pixels are shown: transposed first, then flipped.

  Attributes:
    transpose: rows and columns are exchanged.
    flip_x: columns run from right to left.
    flip_y: rows run from bottom to top.
  """

  transpose: bool = False
  flip_x: bool = False
  flip_y: bool = False

  @property
  def mirrored(self) -> bool:
    """True if no rotation alone gives it."""
    return self.transpose ^ self.flip_x ^ self.flip_y

  @property
  def rotation(self) -> int:
    """Counter-clockwise degrees; of a mirrored one, after a left-right flip."""
    if self.transpose:
      return 90 if self.flip_y != self.mirrored else 270
    return 180 if self.flip_y else 0

  def apply(self, picture: np.ndarray) -> np.ndarray:
    """[h w c] as stored -> [h' w' c] as shown."""
    if self.transpose:
      picture = picture.swapaxes(0, 1)
    if self.flip_x:
      picture = picture[:, ::-1]
    if self.flip_y:
      picture = picture[::-1]
    return np.ascontiguousarray(picture)

  def shown(self, height: int, width: int) -> tuple[int, int]:
    """(height, width) as shown of a stored size; its own inverse."""
    return (width, height) if self.transpose else (height, width)


def orientation(frame: av.VideoFrame) -> Orientation:
  """The orientation of a frame, from the display matrix it carries.

  The matrix (a b u; c d v; x y w) shows the stored pixel (p, q) at
  (a p + c q + x, b p + d q + y); ISO/IEC 14496-12, 6.2.2.
  """
  data = frame.side_data.get(Type.DISPLAYMATRIX)
  if data is None:
    return Orientation()
  a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
  if max(abs(a), abs(d)) >= max(abs(b), abs(c)):
    return Orientation(False, a < 0, d < 0)
  return Orientation(True, c < 0, b < 0)


def frame_rgb(
  frame: av.VideoFrame, size: tuple[int, int], upright: Orientation
) -> np.ndarray:
  """A frame as uint8 [h w 3], upright.

  Args:
    frame: of any size and pixel format.
    size: (height, width) as shown.
    upright: the orientation of the file.
  """
  height, width = upright.shown(*size)
  if _has_alpha(frame):
    solid = _on_black(frame.to_ndarray(format="rgba"))
    frame = av.VideoFrame.from_ndarray(solid, format="rgb24")
  method = "AREA" if height < frame.height else "BICUBIC"
  picture = frame.reformat(
    width=width, height=height, format="rgb24", interpolation=method
  )
  return upright.apply(picture.to_ndarray())


def image_rgb(image: PIL.Image.Image) -> np.ndarray:
  """An image (or the current frame of an animated one), uint8 [h w 3]."""
  image = PIL.ImageOps.exif_transpose(image)
  if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip
    gray = np.asarray(image).astype(np.int64)
    gray = (np.clip(gray, 0, 65535) >> 8).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)
  if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (
    "transparency" in image.info
  ):
    return _on_black(np.asarray(image.convert("RGBA")))
  return np.asarray(image.convert("RGB"))


def resize_rgb(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """uint8 [h w 3] resized to (height, width): area means if it shrinks."""
  height, width = size
  if picture.shape[:2] == (height, width):
    return picture
  method = PIL.Image.Resampling.BOX if height < len(picture) else None
  return np.asarray(
    PIL.Image.fromarray(picture).resize((width, height), method)
  )


def _has_alpha(frame: av.VideoFrame) -> bool:
  form = frame.format
  return form.has_palette or any(part.is_alpha for part in form.components)


def _on_black(rgba: np.ndarray) -> np.ndarray:
  """uint8 [h w 4] composited on black: [h w 3]."""
  alpha = rgba[..., 3:].astype(np.uint16)
  return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
