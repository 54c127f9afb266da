"""Writes pictures to video files as they come, in constant memory.

The extension picks the codec. A file is written under a temporary name and
renamed when it is whole, so what exists can be played.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from magvit_jax.files import paths

# H.264 stores chroma at half the size, which an odd picture does not divide
# into. Such pictures keep it whole: fewer hardware players read the result,
# but no pixel is lost or invented.
_CODECS = {
  ".mp4": "libx264",
  ".mov": "libx264",
  ".mkv": "libx264",
  ".webm": "libvpx-vp9",
  ".avi": "mjpeg",
  ".gif": "gif",
}


def write_video(
  path: paths.Name,
  frames: Iterable[np.ndarray],
  fps: float | Fraction,
  quality: int = 18,
) -> int:
  """Writes a video file.

  Args:
    path: ends in .mp4 .mov .mkv (H.264), .webm (VP9), .avi (Motion JPEG) or
      .gif (a palette per frame, times rounded to 1/100 s). H.264 of an odd
      height or width uses yuv444p.
    frames: uint8 [h w 3] pictures, all of one size; taken one at a time.
    fps: frames per second.
    quality: x264's constant rate factor, 0 (lossless) to 51; the other codecs
      get what looks alike, and gif ignores it.

  Returns:
    How many frames were written.

  Raises:
    ValueError: unknown extension, no frames, frames of a wrong kind.
    OSError: the file cannot be written.
  """
  with opened(path, fps, quality) as file:
    for picture in frames:
      file.add(picture)
  return file.count


@contextlib.contextmanager
def opened(
  path: paths.Name, fps: float | Fraction, quality: int = 18
) -> Iterator["_File"]:
  """A video file to `add` pictures to; arguments as those of `write_video`.

  It appears under its name when the block ends without an error.
  """
  path = paths.as_path(path)
  _check_target(path, fps, quality)
  try:
    with paths.writing(path) as part, contextlib.ExitStack() as stack:
      file = _File(part, _rate(fps), quality, stack)
      yield file
      file.finish()
  except av.FFmpegError as error:
    raise OSError(f"{path}: cannot be written ({error.strerror})") from error


def _check_target(path: paths.Path, fps, quality) -> None:
  if path.suffix.lower() not in _CODECS:
    raise ValueError(
      f"{path}: cannot write {path.suffix or 'a file without extension'!r}; "
      f"use one of {' '.join(_CODECS)}"
    )
  if not paths.is_folder(path.parent):
    raise FileNotFoundError(
      f"{path}: there is no folder {path.parent}; make it first"
    )
  if not 0 <= quality <= 51:
    raise ValueError(f"{path}: quality is {quality}; it must lie in 0 … 51")
  if not 0 < fps < math.inf:
    raise ValueError(f"{path}: fps is {fps}; it must be above 0 and finite")


class _File:
  """A file that is being written; the first picture opens it.

  Attributes:
    count: pictures so far.
  """

  def __init__(self, part, rate, quality, stack):
    self.count = 0
    self._part, self._rate, self._quality = part, rate, quality
    self._stack, self._shape, self._encode = stack, None, None

  def add(self, picture: np.ndarray) -> None:
    """Appends a picture, uint8 [h w 3]; all of a file have one size."""
    picture = np.asarray(picture)
    if self._shape is None:
      self._open(picture)
    if picture.shape != self._shape or picture.dtype != np.uint8:
      raise ValueError(
        f"frame {self.count} is {picture.dtype} {picture.shape} but frame 0 "
        f"was uint8 {self._shape}; all frames of a file have one size"
      )
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
    frame.pts, frame.time_base = self.count, 1 / self._rate
    self._encode(frame)
    self.count += 1

  def finish(self) -> None:
    """Writes what the encoder still holds."""
    if not self.count:
      raise ValueError("there are no frames to write")
    self._encode(None)

  def _open(self, picture: np.ndarray) -> None:
    part = self._part
    _check_picture(part, picture)
    options = {"movflags": "+faststart"} if _is_mp4(part) else {}
    container = self._stack.enter_context(
      av.open(str(part), "w", options=options)
    )
    self._shape = picture.shape
    stream = _stream(container, part, self._shape, self._rate, self._quality)
    if _is_gif(part):
      self._encode = _palettes(container, stream, self._rate)
    else:
      self._encode = _plain(container, stream)


def _is_mp4(path: pathlib.Path) -> bool:
  return path.suffix.lower() in (".mp4", ".mov")


def _is_gif(path: pathlib.Path) -> bool:
  return path.suffix.lower() == ".gif"


def _rate(fps) -> Fraction:
  """`fps` as a fraction of small terms (30000/1001), within 1e-7 of it."""
  exact = Fraction(fps)
  for most in (1001, 10**5, 10**7):
    near = exact.limit_denominator(most)
    slow = (1 / exact).limit_denominator(most)
    for rate in (near, 1 / slow if slow else 0):
      if abs(rate - exact) <= exact / 10**7:
        return rate
  return exact


def _check_picture(path, picture: np.ndarray) -> None:
  kind = picture.dtype == np.uint8
  if not kind or picture.ndim != 3 or picture.shape[-1] != 3:
    raise ValueError(
      f"frame 0 is {picture.dtype} {picture.shape}; video frames are uint8 "
      "[h w 3]: transforms.to_uint8 converts from [-1, 1]"
    )


def _stream(container, path, shape, rate, quality):
  codec = _CODECS[path.suffix.lower()]
  stream = container.add_stream(codec, rate=rate)
  stream.height, stream.width = shape[:2]
  odd = shape[0] % 2 or shape[1] % 2
  if codec in ("libx264", "libvpx-vp9"):
    # Said aloud, or players take BT.709 for granted in large pictures.
    stream.codec_context.colorspace = Colorspace.ITU601
    stream.codec_context.color_range = ColorRange.MPEG
  if codec == "libx264":
    stream.pix_fmt = "yuv444p" if odd else "yuv420p"
    stream.options = {"crf": str(quality), "preset": "medium"}
  elif codec == "libvpx-vp9":
    stream.pix_fmt = "yuv420p"
    crf = min(quality + 10, 63)
    speed = {"deadline": "good", "cpu-used": "4", "row-mt": "1"}
    stream.options = {"crf": str(crf), "b:v": "0", **speed}
  elif codec == "mjpeg":
    stream.pix_fmt = "yuvj444p"
    stream.codec_context.qmin = stream.codec_context.qmax = 1 + quality // 6
  else:
    stream.pix_fmt = "pal8"
  return stream


def _plain(container, stream):
  def encode(frame):
    container.mux(stream.encode(frame))

  return encode


def _palettes(container, stream, rate):
  """Encoder that gives each picture a palette of its own."""
  graph = av.filter.Graph()
  source = graph.add_buffer(
    width=stream.width,
    height=stream.height,
    format="rgb24",
    time_base=1 / rate,
  )
  split = graph.add("split")
  make = graph.add("palettegen", "stats_mode=single")
  use = graph.add("paletteuse", "new=1")
  sink = graph.add("buffersink")
  source.link_to(split)
  split.link_to(use, 0, 0)
  split.link_to(make, 1, 0)
  make.link_to(use, 0, 1)
  use.link_to(sink)
  graph.configure()

  def encode(frame):
    graph.push(frame)
    while True:
      try:
        container.mux(stream.encode(graph.pull()))
      except (av.error.BlockingIOError, av.error.EOFError):
        break
    if frame is None:
      container.mux(stream.encode(None))

  return encode
