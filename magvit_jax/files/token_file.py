"""The .npz file of tokens that `encode` writes and `decode` reads.

It has two arrays: `ids`, [T H W f] in the smallest unsigned type that holds
them, and `meta`, the JSON of a `Meta`. It opens with numpy alone.
"""

import dataclasses
import json
from fractions import Fraction
from typing import Any

import numpy as np

from magvit_jax.files import paths

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Meta:
  """What is needed to turn ids back into the video they came from.

  Attributes:
    frames, height, width: of the original video.
    pad: frames, lines and columns that were added at the end.
    fps: frames per second as a fraction, such as '30000/1001'.
    strides: frames, lines and columns per token.
    sizes: number of ids per factor.
    fingerprint: of the tokenizer's weights.
    source: file name of the original.
    format: version of this layout.
  """

  frames: int
  height: int
  width: int
  pad: tuple[int, int, int]
  fps: str
  strides: tuple[int, int, int]
  sizes: tuple[int, ...]
  fingerprint: str
  source: str
  format: int = FORMAT

  @property
  def rate(self) -> Fraction:
    return Fraction(self.fps)


def id_type(sizes: tuple[int, ...]) -> np.dtype:
  """Smallest unsigned type for ids of these sizes."""
  return np.min_scalar_type(max(sizes) - 1)


def write(path: paths.Name, ids: np.ndarray, meta: Meta) -> None:
  """Writes ids [T H W f]; the file appears under its name when it is whole.

  Raises:
    OSError: the file cannot be written.
  """
  text = json.dumps(dataclasses.asdict(meta))
  with paths.writing(paths.as_path(path)) as part, part.open("wb") as file:
    np.savez_compressed(
      file, ids=ids.astype(id_type(meta.sizes)), meta=np.array(text)
    )


def read(path: paths.Name) -> tuple[np.ndarray, Meta]:
  """Reads (ids [T H W f], meta).

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not a file of tokens, or of a newer format.
  """
  path = paths.as_path(path)
  with path.open("rb") as part:
    try:
      with np.load(part, allow_pickle=False) as file:
        ids, fields = file["ids"], json.loads(str(file["meta"]))
      if fields.get("format") == FORMAT:
        return ids, _meta(ids, fields)
    # Damaged bytes make zipfile, zlib, numpy and json raise nearly anything.
    except Exception as error:
      raise ValueError(
        f"{path} is not a file of tokens, or is damaged "
        f"({type(error).__name__}: {error}); `python -m magvit_jax encode` "
        "writes such files"
      ) from error
  raise ValueError(
    f"{path} has format {fields.get('format')!r} but this version reads "
    f"{FORMAT}; use the version of magvit_jax that wrote it, or encode the "
    "video again"
  )


def _meta(ids: np.ndarray, fields: dict[str, Any]) -> Meta:
  """The checked `Meta` of a file; TypeError or ValueError for wrong values."""
  for name in ("pad", "strides", "sizes"):
    fields[name] = tuple(fields[name])
  meta = Meta(**fields)
  numbers = (meta.frames, meta.height, meta.width, *meta.strides, *meta.sizes)
  if not all(type(n) is int and n > 0 for n in numbers):
    raise ValueError(f"sizes, strides and lengths are not positive: {numbers}")
  if len(meta.pad) != 3 or not all(type(n) is int and n >= 0 for n in meta.pad):
    raise ValueError(f"pad is {meta.pad}, not three lengths")
  if not 0 < meta.rate:
    raise ValueError(f"fps is {meta.fps!r}, not above 0")
  if ids.ndim != 4 or ids.dtype.kind not in "ui" or not ids.size:
    raise ValueError(f"ids are {ids.dtype} of shape {ids.shape}, not [T H W f]")
  if ids.shape[-1] != len(meta.sizes) or (ids >= np.array(meta.sizes)).any():
    raise ValueError(f"ids do not lie within the sizes {meta.sizes}")
  return meta


def check_target(path: paths.Name, overwrite: bool) -> None:
  """Refuses an output that would be lost or cannot be written.

  Called before the work, which may take hours.

  Raises:
    OSError: it exists and `overwrite` is off, or its folder does not exist.
  """
  path = paths.as_path(path)
  if path.exists() and not overwrite:
    raise FileExistsError(
      f"{path} exists and stays as it is; give another name, or --overwrite"
    )
  if not paths.is_folder(path.parent):
    raise FileNotFoundError(
      f"{path} cannot be written: there is no folder {path.parent}; make it"
    )
  if not paths.is_open(path.parent):
    raise PermissionError(
      f"{path} cannot be written: no permission in the folder {path.parent}"
    )
