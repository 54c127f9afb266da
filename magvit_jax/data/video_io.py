"""Reads video files and images as uint8 pictures, through PyAV and Pillow.

Frame n of a file is the n-th that its decoder gives, from the first that can be
shown on. Where the container has presentation times they come from its index,
or from a pass over the packets that decodes nothing, so a clip is found by
seeking to the nearest keyframe and only what lies between that and the clip's
last frame is decoded. Where it has none (AVI), or where those of the frames do
not rise, frames are counted by decoding. A packet in the middle of a file that
gives no frame repeats the frame before it.

Pictures come out as a player shows them: upright, on black where they are
transparent, and of the size of the first one where the size changes within a
file. Pixels are taken as square. Animated images (webp, png) are videos.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import PIL.ExifTags
import PIL.Image

from magvit_jax.data import _media, _timestamps
from magvit_jax.data._pixels import (
  Orientation,
  frame_rgb,
  image_rgb,
  orientation,
  resize_rgb,
)
from magvit_jax.files import paths

VIDEO_EXTENSIONS = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".gif")
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ANIMATED_EXTENSIONS = (".png", ".webp")  # images that may be animated


# Seconds before the wanted frame to seek to, in turn: with reordered frames a
# seek can land behind its target. None decodes from the start of the file.
_SEEKS = (0.0, 1.0, None)
_MANY = 64  # frames from which a reader gives the decoder all cores


@dataclasses.dataclass(frozen=True)
class Info:
  """What a file holds.

  Attributes:
    width: columns of a picture as shown (after rotation).
    height: rows of a picture as shown (after rotation).
    fps: frames per second; where they are not evenly spaced the mean, which is
      (frames - 1) / (time of the last - time of the first). 1 for an image.
    frames: number of frames.
    rotation: counter-clockwise degrees of the metadata: 0, 90, 180 or 270.
    has_audio: True if there is a sound track.
    mirrored: True if the metadata flips left and right before it rotates.
  """

  width: int
  height: int
  fps: Fraction
  frames: int
  rotation: int
  has_audio: bool
  mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class _Timeline:
  """The frames of a file.

  Attributes:
    stamps: int64 [t], rising times in units of `base` seconds.
    base: Fraction.
    fps: mean rate.
    size: (height, width) of the first frame as shown.
    upright: how frames are shown.
    has_audio: of the file.
    seekable: False if the stamps are not those of the container; frames are
      counted from the start of the file then.
  """

  stamps: np.ndarray
  base: Fraction
  fps: Fraction
  size: tuple[int, int]
  upright: Orientation = Orientation()
  has_audio: bool = False
  seekable: bool = True

  def seconds(self) -> np.ndarray:
    return (self.stamps - self.stamps[0]) * float(self.base)

  def number(self, stamp: int) -> int:
    found = np.searchsorted(self.stamps, stamp, side="right") - 1
    return max(int(found), 0)


def probe(path: paths.Name) -> Info:
  """Size, rate, length and orientation of a file.

  Of an image only the header is decoded: there may be millions.

  Raises:
    OSError: the file cannot be read, or holds no picture.
  """
  if _is_still(path):
    with _media.open_image(path) as image:
      width, height = image.size
      turned = image.getexif().get(PIL.ExifTags.Base.Orientation, 1) >= 5
    if turned:
      width, height = height, width
    return Info(width, height, Fraction(1), 1, 0, False)
  line = _timeline(path)
  height, width = line.size
  return Info(
    width,
    height,
    line.fps,
    len(line.stamps),
    line.upright.rotation,
    line.has_audio,
    line.upright.mirrored,
  )


def count_frames(path: paths.Name, fps: float | None = None) -> int:
  """Number of frames of a file, at `fps` frames per second if given."""
  if _is_still(path):
    return 1
  line = _timeline(path)
  if fps is None:
    return len(line.stamps)
  return int(line.seconds()[-1] * float(fps) + 1e-6) + 1


def read_clip(
  path: paths.Name,
  start: int,
  frames: int,
  stride: int = 1,
  fps: float | None = None,
  *,
  lines: int | None = None,
  least: tuple[int, int] = (1, 1),
) -> np.ndarray:
  """Reads frames start, start + stride, … without decoding the whole file.

  Args:
    path: a video or an image.
    start: number of the first frame.
    frames: how many to read.
    stride: step between them.
    fps: if given, `start` and `stride` count frames at this rate, and each
      is the nearest in time of the file's own.
    lines: resize to this height, aspect kept; None keeps the size.
    least: (height, width) that the resized picture covers at least.

  Returns:
    uint8 [t h w 3].

  Raises:
    OSError: the file cannot be read or has too few frames.
  """
  total = count_frames(path, fps)
  last = start + (frames - 1) * stride
  if start < 0 or last >= total:
    raise OSError(
      f"{path}: frames {start} to {last} were asked for but it has {total}"
    )
  numbers = start + stride * np.arange(frames)
  return np.stack(list(_pictures(path, numbers, fps, lines, least)))


def read_frames(
  path: paths.Name,
  fps: float | None = None,
  *,
  lines: int | None = None,
  least: tuple[int, int] = (1, 1),
) -> Iterator[np.ndarray]:
  """Yields every frame in order, uint8 [h w 3], in constant memory.

  Arguments and errors are those of `read_clip`.
  """
  numbers = np.arange(count_frames(path, fps))
  yield from _pictures(path, numbers, fps, lines, least)


def read_all(
  path: paths.Name,
  lines: int | None = None,
  fps: float | None = None,
  *,
  least: tuple[int, int] = (1, 1),
) -> np.ndarray:
  """A whole file, uint8 [t h w 3]; see `read_clip` for the arguments."""
  return np.stack(list(read_frames(path, fps, lines=lines, least=least)))


def is_image(path: paths.Name) -> bool:
  """Whether the extension is an image's: a video of one frame."""
  return pathlib.Path(path).suffix.lower() in IMAGE_EXTENSIONS


def fit(
  height: int, width: int, lines: int | None, least: tuple[int, int] = (1, 1)
) -> tuple[int, int]:
  """(height, width) of a picture resized to `lines`, covering `least`."""
  scale = 1.0 if lines is None else lines / height
  scale = max(scale, least[0] / height, least[1] / width)
  return (
    max(round(height * scale), least[0]),
    max(round(width * scale), least[1]),
  )


def _pictures(path, numbers, fps, lines, least) -> Iterator[np.ndarray]:
  """Frames `numbers` (counted at `fps`) of a file, resized and upright."""
  if _is_still(path):
    with _media.open_image(path) as image:
      picture = image_rgb(image)
    picture = resize_rgb(picture, fit(*picture.shape[:2], lines, least))
    yield from (picture for _ in numbers)
    return
  line = _timeline(path)
  if fps is not None:
    numbers = _nearest(line.seconds(), numbers / float(fps))
  size = fit(*line.size, lines, least)
  frames = _animation if is_image(path) else _numbered
  done, previous = 0, None
  for number, frame in frames(path, line, numbers):
    # A packet that shows no frame leaves a hole, which its predecessor fills.
    while numbers[done] <= number:
      shown = frame if numbers[done] == number else previous or frame
      picture = _rgb(shown, size, line.upright)
      times = np.searchsorted(numbers, numbers[done], side="right") - done
      yield from (picture for _ in range(times))
      done += times
      if done == len(numbers):
        return
    previous = frame
  raise OSError(
    f"{path}: decoding ended before frame {numbers[done]} of "
    f"{len(line.stamps)}; the file is truncated or damaged"
  )


def _rgb(frame, size, upright) -> np.ndarray:
  if isinstance(frame, av.VideoFrame):
    return frame_rgb(frame, size, upright)
  return resize_rgb(image_rgb(frame), size)


def _nearest(seconds: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Number of the frame nearest to each time; the earlier one of two."""
  after = np.clip(np.searchsorted(seconds, times), 1, max(len(seconds) - 1, 1))
  before = after - 1
  after = np.minimum(after, len(seconds) - 1)
  later = seconds[after] - times < times - seconds[before] - 1e-9
  return np.where(later, after, before)


def _numbered(path, line, numbers) -> Iterator[tuple[int, av.VideoFrame]]:
  """(number, frame) from at or before numbers[0] on."""
  first = int(numbers[0])
  seekable = line.seekable and first > 0
  for back in _SEEKS if seekable else (None,):
    with _media.open_video(path) as (container, stream):
      if len(numbers) >= _MANY:
        stream.thread_type = "AUTO"
      if back is not None and not _seek(container, stream, line, first, back):
        continue
      frames = _decode(container, stream)
      for count, frame in enumerate(frames):
        placed = line.seekable and frame.pts is not None
        number = line.number(frame.pts) if placed else count
        if not count and number > first and back is not None:
          break
        yield number, frame
      else:
        return


def _seek(container, stream, line, first, back) -> bool:
  """Whether the container could go to the keyframe before frame `first`."""
  target = int(line.stamps[first]) - int(back / line.base)
  try:
    container.seek(target, stream=stream)
  except av.FFmpegError:
    return False
  return True


def _decode(container, stream) -> Iterator[av.VideoFrame]:
  """Every frame the decoder gives from here on (tests count them)."""
  yield from container.decode(stream)


def _timeline(path) -> _Timeline:
  path = paths.as_path(path)
  return _scan(path, *paths.stamp(path))


@functools.lru_cache(maxsize=4096)
def _scan(path: paths.Path, mtime: int, size: int) -> _Timeline:
  """The timeline of a file; `mtime` and `size` only mark a changed one."""
  del mtime, size
  if is_image(path):
    return _scan_animation(path)
  with _media.open_video(path) as (container, stream):
    first = next(_decode(container, stream), None)
  if first is None:
    raise OSError(f"{path}: no frame can be decoded; it is truncated or empty")
  with _media.open_video(path) as (container, stream):
    base, audio = stream.time_base, bool(container.streams.audio)
    rate = _timestamps.container_rate(container, stream)
    stamps = _timestamps.packet_stamps(container, stream, first.pts)
  timed = stamps is not None
  if not timed:
    stamps, timed = _decoded_stamps(path)
  if timed:  # packets of before the first frame that can be shown give none
    stamps = stamps[stamps >= first.pts]
    rate = _timestamps.mean_rate(stamps, base, rate)
  else:
    stamps, base = np.arange(len(stamps)), 1 / rate
  upright = orientation(first)
  shown = upright.shown(first.height, first.width)
  return _Timeline(stamps, base, rate, shown, upright, audio, timed)


def _decoded_stamps(path) -> tuple[np.ndarray, bool]:
  """(times of the frames [t], True if they are the container's), by decoding.

  Without times of the container they are 0, 1, 2, …
  """
  with _media.open_video(path) as (container, stream):
    stream.thread_type = "AUTO"
    stamps = [frame.pts for frame in _decode(container, stream)]
    timed = container.format.name != "avi" and None not in stamps
  if timed and np.all(np.diff(stamps) > 0):
    return np.asarray(stamps, np.int64), True
  return np.arange(len(stamps)), False


def _is_still(path: paths.Name) -> bool:
  """True for an image that is not animated."""
  return is_image(path) and not _animated(path)


def _animated(path: paths.Name) -> bool:
  """True for an animated image; the suffix rules out most without a look."""
  path = paths.as_path(path)
  return path.suffix.lower() in ANIMATED_EXTENSIONS and _look_animated(
    path, *paths.stamp(path)
  )


@functools.lru_cache(maxsize=65536)
def _look_animated(path: paths.Path, mtime: int, size: int) -> bool:
  """True for an animated image; `mtime` and `size` mark a changed file."""
  del mtime, size
  with _media.open_image(path) as image:
    return getattr(image, "is_animated", False)


def _scan_animation(path: paths.Path) -> _Timeline:
  """The timeline of an animated image, in milliseconds."""
  with _media.open_image(path) as image:
    size = image.size[::-1]
    times = []
    for k in range(image.n_frames):
      image.seek(k)
      image.load()
      # As browsers do: a frame of no duration lasts 100 ms.
      times.append(max(round(image.info.get("duration", 0)), 0) or 100)
  stamps = np.cumsum([0, *times[:-1]])
  rate = _timestamps.mean_rate(
    stamps, Fraction(1, 1000), Fraction(1000, times[0])
  )
  return _Timeline(stamps, Fraction(1, 1000), rate, size, seekable=False)


def _animation(path, line, numbers) -> Iterator[tuple[int, PIL.Image.Image]]:
  """(number, frame) of an animated image from the start on."""
  del line
  with _media.open_image(path) as image:
    for k in range(int(numbers[-1]) + 1):
      image.seek(k)
      yield k, image.copy()
