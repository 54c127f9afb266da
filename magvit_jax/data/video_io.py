"""Reads video files and images as uint8 pictures, through PyAV and Pillow.

Frame n of a file is the n-th in the order of presentation, whatever the
container. Its timestamp comes from the container's index, or from a pass over
the packets that decodes nothing, so a clip is found by seeking to the nearest
keyframe and only what lies between that and the clip's last frame is decoded.
Pictures come out as a player shows them: rotation metadata is applied. Pixels
are taken as square.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from magvit_jax.files import paths

VIDEO_EXTENSIONS = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".gif")
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Seconds before the wanted frame to seek to, in turn: with reordered frames a
# seek can land behind its target. None decodes from the start of the file.
_SEEKS = (0.0, 1.0, None)
_MANY = 64  # frames from which a reader gives the decoder all cores


@dataclasses.dataclass(frozen=True)
class Info:
  """What a file holds.

  Attributes:
    width: columns of a picture as shown (after rotation).
    height: lines of a picture as shown (after rotation).
    fps: mean frames per second; 1 for an image.
    frames: number of frames.
    rotation: counter-clockwise degrees of the metadata: 0, 90, 180 or 270.
    has_audio: whether there is a sound track.
  """

  width: int
  height: int
  fps: Fraction
  frames: int
  rotation: int
  has_audio: bool


@dataclasses.dataclass(frozen=True)
class _Timeline:
  """Timestamps of all frames: `stamps` int64 [t], ascending, in `base` s."""

  stamps: np.ndarray
  base: Fraction
  fps: Fraction
  has_audio: bool
  seekable: bool = True

  def seconds(self) -> np.ndarray:
    return (self.stamps - self.stamps[0]) * float(self.base)

  def number(self, stamp: int) -> int:
    found = np.searchsorted(self.stamps, stamp, side="right") - 1
    return max(int(found), 0)


def probe(path: paths.Name) -> Info:
  """Size, rate, length and rotation of a file.

  Decodes one frame of a video, and of an image only its header: there may be
  millions.

  Raises:
    OSError: the file cannot be read, or holds no picture.
  """
  if is_image(path):
    with _picture(path) as image:
      width, height = image.size
      turned = image.getexif().get(PIL.ExifTags.Base.Orientation, 1) >= 5
    if turned:
      width, height = height, width
    return Info(width, height, Fraction(1), 1, 0, False)
  line = _timeline(path)
  with _opened(path) as (container, stream):
    frame = next(_decode(container, stream), None)
    if frame is None:
      raise OSError(f"{path}: no frame can be decoded; the file is damaged")
    quarters = _quarters(frame)
    width, height = frame.width, frame.height
  if quarters % 2:
    width, height = height, width
  count = len(line.stamps)
  return Info(width, height, line.fps, count, 90 * quarters, line.has_audio)


def count_frames(path: paths.Name, fps: float | None = None) -> int:
  """Number of frames of a file, at `fps` frames per second if given."""
  if is_image(path):
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
  if is_image(path):
    picture = _image(path, lines, least)
    yield from (picture for _ in numbers)
    return
  line = _timeline(path)
  if fps is not None:
    numbers = _nearest(line.seconds(), numbers / float(fps))
  done, previous = 0, None
  for number, frame in _numbered(path, line, numbers):
    # A packet that shows no frame leaves a hole, which its predecessor fills.
    while numbers[done] <= number:
      shown = frame if numbers[done] == number else previous or frame
      picture = _rgb(shown, lines, least)
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
    with _opened(path) as (container, stream):
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


@contextlib.contextmanager
def _opened(path):
  """(container, video stream); what FFmpeg raises becomes an OSError."""
  path = paths.place(path)
  if not paths.is_remote(path) and not path.is_file():
    raise FileNotFoundError(f"{path}: no such file")
  try:
    with (
      _source(path) as source,
      av.open(source, metadata_errors="ignore") as container,
    ):
      stream = container.streams.best("video")
      if stream is None:
        raise OSError(f"{path}: holds no video stream")
      yield container, stream
  except av.FFmpegError as error:
    raise OSError(
      f"{path}: cannot be read as video ({error.strerror}); it is truncated, "
      "damaged or not a video"
    ) from error


@contextlib.contextmanager
def _source(path: paths.Path):
  """What FFmpeg and Pillow open: a local name, or a remote file that seeks."""
  if not paths.is_remote(path):
    yield str(path)
    return
  try:
    file = path.open("rb")
  except FileNotFoundError as error:
    raise FileNotFoundError(f"{path}: no such file") from error
  with file:
    yield file


def _timeline(path) -> _Timeline:
  path = paths.place(path)
  return _scan(path, *paths.stamp(path))


@functools.lru_cache(maxsize=4096)
def _scan(path: paths.Path, mtime: int, size: int) -> _Timeline:
  """Timestamps of a file; `mtime` and `size` only mark a changed file."""
  del mtime, size
  with _opened(path) as (container, stream):
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    base = stream.time_base
    audio = bool(container.streams.audio)
    stamps = _indexed(container, stream)
    if stamps is None:
      packets = [p for p in container.demux(stream) if p.size]
      stamps = [p.pts for p in packets if not p.is_discard]
  if not len(stamps):
    raise OSError(f"{path}: holds no frame; it is truncated or empty")
  if any(stamp is None for stamp in stamps):
    stamps = np.arange(len(stamps))
    return _Timeline(stamps, 1 / rate, rate, audio, seekable=False)
  return _Timeline(np.sort(np.asarray(stamps, np.int64)), base, rate, audio)


def _indexed(container, stream) -> np.ndarray | None:
  """Timestamps from the index of an mp4 of constant rate, else None.

  The index holds decoding times; they are a shift away from the times of
  presentation where their steps are equal and no frame is edited out.
  """
  entries = stream.index_entries
  uniform = "mp4" in container.format.name and len(entries) == stream.frames
  if not uniform or len(entries) < 2 or stream.start_time is None:
    return None
  stamps = np.array([entry.timestamp for entry in entries], np.int64)
  if len(set(np.diff(stamps).tolist())) > 1:
    return None
  if any(entry.is_discard for entry in entries):
    return None
  return stamps - stamps[0] + stream.start_time


def _quarters(frame: av.VideoFrame) -> int:
  """Counter-clockwise quarter turns that show a frame upright."""
  return round(frame.rotation / 90) % 4


def _rgb(frame, lines, least) -> np.ndarray:
  quarters = _quarters(frame)
  height, width = frame.height, frame.width
  if quarters % 2:
    height, width = width, height
  new_height, new_width = fit(height, width, lines, least)
  method = "AREA" if new_height < height else "BICUBIC"
  if quarters % 2:
    new_height, new_width = new_width, new_height
  picture = frame.reformat(
    width=new_width, height=new_height, format="rgb24", interpolation=method
  )
  return np.ascontiguousarray(np.rot90(picture.to_ndarray(), quarters))


@contextlib.contextmanager
def _picture(path) -> Iterator[PIL.Image.Image]:
  """An image, not decoded yet; what Pillow raises becomes an OSError."""
  try:
    with _source(paths.place(path)) as source, PIL.Image.open(source) as image:
      yield image
  except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
    raise OSError(f"{path}: cannot be read as an image ({error})") from error


def _image(path, lines=None, least=(1, 1)) -> np.ndarray:
  with _picture(path) as image:
    upright = PIL.ImageOps.exif_transpose(image).convert("RGB")
  height, width = fit(upright.height, upright.width, lines, least)
  if (height, width) != (upright.height, upright.width):
    shrink = height < upright.height
    method = PIL.Image.Resampling.BOX if shrink else None
    upright = upright.resize((width, height), method)
  return np.asarray(upright)
