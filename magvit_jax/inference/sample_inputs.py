"""What the verb `sample` reads: clips and masks at the trained size."""

import sys

import numpy as np

from magvit_jax.data import transforms, video_io

Shape = tuple[int, int, int, int]


def read_start(
  path: str, shape: Shape, given: int, fit: bool
) -> tuple[np.ndarray, video_io.Info]:
  """The start of a clip at the trained size, and what its file holds.

  Args:
    path: a video or an image.
    shape: (t, h, w, 3) of the generator.
    given: frames that must be there; up to t are read.
    fit: resize it to cover h x w and crop its centre.

  Returns:
    uint8 [n h w 3] with given <= n <= t.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is too short, or has another size and `fit` is off.
  """
  info = probe(path, given)
  _check_size(path, info, shape, fit)
  return read_part(path, 0, min(shape[0], info.frames), shape, fit), info


def read_ends(
  path: str, shape: Shape, given: int, fit: bool
) -> tuple[np.ndarray, video_io.Info]:
  """The first and the last `given` frames, uint8 [2 given h w 3]; alike."""
  info = probe(path, 2 * given)
  _check_size(path, info, shape, fit)
  starts = (0, info.frames - given)
  parts = [read_part(path, start, given, shape, fit) for start in starts]
  return np.concatenate(parts), info


def read_inner(
  path: str, shape: Shape, size: tuple[int, int] | None
) -> tuple[np.ndarray, video_io.Info]:
  """A clip that is to be outpainted, scaled as its canvas.

  Args:
    path: a video.
    shape: (t, h, w, 3) of the generator.
    size: (width, height) of the canvas in pixels of the video; it is scaled to
      the trained size. None is that size.

  Returns:
    uint8 [t a b 3], and what the file holds.

  Raises:
    ValueError: a canvas of another aspect, or smaller than the video.
  """
  t, h, w, _ = shape
  info = probe(path, t)
  width, height = size or (w, h)
  scale = h / height
  if round(width * scale) != w:
    raise ValueError(
      f"--size={width}x{height} has not the aspect of the trained size, {w}x"
      f"{h}; give {round(w / scale)}x{height}, or another like it"
    )
  if info.width > width or info.height > height:
    raise ValueError(
      f"{path} is {info.width}x{info.height}, which does not fit into "
      f"--size={width}x{height} (width x height); give a larger one"
    )
  lines = max(1, round(info.height * scale)) if size else None
  return video_io.read_clip(path, 0, t, lines=lines), info


def read_mask(
  path: str, info: video_io.Info, shape: Shape, fit: bool
) -> np.ndarray:
  """The mask of a clip: uint8 [h w] of an image, [t h w] of a video.

  Args:
    path: of the mask; white is made anew.
    info: of the clip, whose size the mask has.
    shape: (t, h, w, 3) of the generator.
    fit: whether the clip is resized and cropped, and the mask with it.

  Raises:
    ValueError: another size, or a mask video that is too short.
  """
  own = video_io.probe(path)
  if (own.width, own.height) != (info.width, info.height):
    raise ValueError(
      f"the mask {path} is {own.width}x{own.height} (width x height) but the "
      f"input is {info.width}x{info.height}; give one of the same size"
    )
  count = 1 if video_io.is_image(path) else shape[0]
  if own.frames < count:
    raise ValueError(
      f"the mask {path} has {own.frames} frames; give {count}, or an image, "
      "which holds for all frames"
    )
  mask = read_part(path, 0, count, shape, fit).mean(-1).astype(np.uint8)
  return mask[0] if count == 1 else mask


def probe(path: str, frames: int) -> video_io.Info:
  """What a file holds, if it has so many frames."""
  info = video_io.probe(path)
  if info.frames < frames:
    raise ValueError(
      f"{path} has {info.frames} frames; this task needs the first {frames}"
    )
  if info.has_audio:
    print(f"note: the sound of {path} is not used", file=sys.stderr)
  return info


def _check_size(
  path: str, info: video_io.Info, shape: Shape, fit: bool
) -> None:
  _, h, w, _ = shape
  if not fit and (info.height, info.width) != (h, w):
    raise ValueError(
      f"{path} has pictures of {info.height}x{info.width} (height x width); "
      f"the checkpoint was trained on {h}x{w}. Give such a clip, or --fit to "
      "resize it and crop its centre"
    )


def read_part(
  path: str, start: int, count: int, shape: Shape, fit: bool
) -> np.ndarray:
  """Frames of a file, uint8 [count h w 3], resized and cropped if `fit`."""
  _, h, w, _ = shape
  lines, least = (h, (h, w)) if fit else (None, (1, 1))
  video = video_io.read_clip(path, start, count, lines=lines, least=least)
  top, left = (video.shape[1] - h) // 2, (video.shape[2] - w) // 2
  return transforms.crop(video, top, left, (h, w))
