"""What is uploaded: checked, cut to a limit, read into memory.

A file is opened only if its first bytes are those of a container or picture
that is read here: FFmpeg would also follow playlists, which name other files
and addresses.
"""

import pathlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import PIL.Image

from magvit_jax.data import video_io
from magvit_jax.inference import sample_inputs

MAX_PIXELS = 2**26  # of a clip over all frames: 192 MiB
EXTENSIONS = (*video_io.VIDEO_EXTENSIONS, *video_io.IMAGE_EXTENSIONS)
# What a file begins with, and where: ISO media boxes, Matroska, RIFF (AVI and
# WebP), GIF, PNG, JPEG, BMP.
_MAGIC = (
  *((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
  (0, b"\x1a\x45\xdf\xa3"),
  (0, b"RIFF"),
  (0, b"GIF8"),
  (0, b"\x89PNG"),
  (0, b"\xff\xd8\xff"),
  (0, b"BM"),
)


class Limits(NamedTuple):
  """What may be uploaded.

  Attributes:
    megabytes: size of a file.
    seconds: from the start, which are read; the rest is left out.
  """

  megabytes: float = 50.0
  seconds: float = 10.0


class Clip(NamedTuple):
  """The start of an upload.

  Attributes:
    name: of the file, as its owner called it.
    fps: frames per second; 1 for an image.
    frames: of the whole file.
    video: uint8 [n h w 3], n <= frames.
    fitted: uint8 [n a b 3], the same resized and cropped to the size that a
      generator makes; None if there is no generator.
    sound: whether the file has some, which is not used.
  """

  name: str
  fps: Fraction
  frames: int
  video: np.ndarray
  fitted: np.ndarray | None
  sound: bool


def read(
  path: str, limits: Limits, shape: tuple[int, int, int, int] | None = None
) -> Clip:
  """Reads the start of a file.

  Args:
    path: of the upload.
    limits: of its size and length.
    shape: (t, h, w, 3) of a generator, whose size `fitted` gets.

  Raises:
    ValueError: too large, no video, or a damaged one. The message names the
      file as the user does.
  """
  file = pathlib.Path(path)
  with _in_words(file):
    _check(file, limits)
    info = video_io.probe(file)
    count = _count(file, info, limits)
    video = video_io.read_clip(file, 0, count)
    fitted = shape and sample_inputs.read_part(str(file), 0, count, shape, True)
  return Clip(file.name, info.fps, info.frames, video, fitted, info.has_audio)


@contextmanager
def _in_words(file: pathlib.Path) -> Iterator[None]:
  """Errors of reading name the file without the folder it was put into."""
  try:
    with warnings.catch_warnings():
      # Pillow warns of pictures that are larger than we let through.
      warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
      yield
  except (OSError, ValueError) as error:
    text = str(error).replace(str(file), file.name)
    raise ValueError(text) from error


def _check(file: pathlib.Path, limits: Limits) -> None:
  """Refuses a file by its size, its name and its first bytes."""
  megabytes = file.stat().st_size / 1e6
  if megabytes > limits.megabytes:
    raise ValueError(
      f"{file.name} has {megabytes:.1f} MB; at most {limits.megabytes:g} MB "
      "are taken (serve --max_mb): cut it shorter or smaller"
    )
  with file.open("rb") as stream:
    head = stream.read(12)
  known = any(head[at : at + len(b)] == b for at, b in _MAGIC)
  if file.suffix.lower() not in EXTENSIONS or not known:
    raise ValueError(
      f"{file.name} is no video or image that is read here; give one of "
      f"{' '.join(EXTENSIONS)}"
    )


def _count(file: pathlib.Path, info: video_io.Info, limits: Limits) -> int:
  """How many first frames are read."""
  fit = MAX_PIXELS // (info.width * info.height)
  if not fit:
    raise ValueError(
      f"{file.name} has pictures of {info.width}x{info.height}; at most "
      f"{MAX_PIXELS:,} pixels are taken: make it smaller"
    )
  if video_io.is_image(file):
    return 1
  return max(1, min(info.frames, fit, int(limits.seconds * info.fps)))
