"""Small videos for tests, written by PyAV and not by the code under test."""

from fractions import Fraction

import av
import numpy as np


def pictures(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
  """uint8 [t h w 3]: brightness tells the frame, colours the corners.

  The top left is red, the top right green, the bottom left blue. Frame t has
  the level 20 + 200 t / frames in its middle.
  """
  video = np.zeros((frames, height, width, 3), np.uint8)
  for t in range(frames):
    video[t] = 20 + 200 * t // frames
  a, b = height // 3, width // 3
  video[:, :a, :b] = (220, 20, 20)
  video[:, :a, -b:] = (20, 220, 20)
  video[:, -a:, :b] = (20, 20, 220)
  return video


def level(video: np.ndarray) -> np.ndarray:
  """Brightness [t] of the middle of each frame, which tells them apart."""
  h, w = video.shape[1:3]
  middle = video[:, h * 2 // 5 : h * 3 // 5, w * 2 // 5 : w * 3 // 5]
  return middle.mean((1, 2, 3))


def write(
  path,
  video: np.ndarray,
  fps: float | Fraction = 25,
  *,
  codec: str = "libx264",
  pix_fmt: str = "yuv420p",
  rotation: int = 0,
  gop: int = 12,
  stamps: list[int] | None = None,
  faststart: bool = False,
) -> str:
  """Writes uint8 [t h w 3] and returns the path as a string.

  Args:
    path: where to; the extension picks the container.
    video: the frames.
    fps: frames per second.
    codec: name of an FFmpeg encoder.
    pix_fmt: its pixel format.
    rotation: counter-clockwise degrees in the container's display matrix.
    gop: frames between keyframes.
    stamps: times of the frames in units of 1 / fps; None is 0, 1, 2, …
    faststart: put the index of an mp4 first, so that a cut file opens.
  """
  rate = Fraction(fps).limit_denominator(1001)
  options = {"movflags": "+faststart"} if faststart else {}
  with av.open(str(path), "w", options=options) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = video.shape[1:3]
    stream.pix_fmt = pix_fmt
    stream.codec_context.gop_size = gop
    if codec == "libx264":
      stream.options = {"crf": "10"}
    if rotation:
      stream.set_display_rotation(rotation)
    for t, picture in enumerate(video):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
      frame.pts = stamps[t] if stamps else t
      frame.time_base = 1 / rate
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return str(path)
