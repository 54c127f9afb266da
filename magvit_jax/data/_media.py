"""Opens videos with PyAV and images with Pillow, local or in a bucket."""

import contextlib
import struct
from collections.abc import Iterator

import av
import PIL.ExifTags
import PIL.Image

from magvit_jax.files import paths

# Pillow raises all of these for damaged files.
PILLOW_ERRORS = (
  OSError,
  SyntaxError,
  ValueError,
  EOFError,
  struct.error,
  PIL.Image.DecompressionBombError,
)


@contextlib.contextmanager
def open_video(path):
  """(container, video stream); what FFmpeg raises becomes an OSError."""
  path = paths.as_path(path)
  if not paths.is_remote(path) and not path.is_file():
    if path.is_dir():
      raise IsADirectoryError(f"{path} is a folder; give a video file")
    raise FileNotFoundError(f"{path}: no such file")
  try:
    with (
      open_source(path) as source,
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
def open_source(path: paths.Path):
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


@contextlib.contextmanager
def open_image(path) -> Iterator[PIL.Image.Image]:
  """An image, not decoded yet; what Pillow raises becomes an OSError."""
  try:
    with (
      open_source(paths.as_path(path)) as source,
      PIL.Image.open(source) as image,
    ):
      yield image
  except PILLOW_ERRORS as error:
    raise OSError(f"{path}: cannot be read as an image ({error})") from error
