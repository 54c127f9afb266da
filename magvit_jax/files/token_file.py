"""The .npz file of tokens that `encode` writes and `decode` reads.

It has two arrays: `ids`, [T H W f] in the smallest unsigned type that holds
them, and `meta`, the JSON of a `Meta`. It opens with numpy alone.
"""

import dataclasses
import json
import zipfile
from fractions import Fraction

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
  with paths.writing(paths.place(path)) as part, part.open("wb") as file:
    np.savez_compressed(
      file, ids=ids.astype(id_type(meta.sizes)), meta=np.array(text)
    )


def read(path: paths.Name) -> tuple[np.ndarray, Meta]:
  """Reads (ids [T H W f], meta).

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not a file of tokens, or of a newer format.
  """
  path = paths.place(path)
  try:
    with path.open("rb") as part, np.load(part, allow_pickle=False) as file:
      ids, fields = file["ids"], json.loads(str(file["meta"]))
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f"{path} is not a file of tokens ({error}); "
      "`python -m magvit_jax encode` writes them"
    ) from error
  if fields.get("format") != FORMAT:
    raise ValueError(
      f"{path} has format {fields.get('format')!r} but this version reads "
      f"{FORMAT}; use the version of magvit_jax that wrote it, or encode the "
      "video again"
    )
  for name in ("pad", "strides", "sizes"):
    fields[name] = tuple(fields[name])
  return ids, Meta(**fields)


def check_target(path: paths.Name, overwrite: bool) -> None:
  """Refuses an output that would be lost or cannot be written.

  Called before the work, which may take hours.

  Raises:
    OSError: it exists and `overwrite` is off, or its folder does not exist.
  """
  path = paths.place(path)
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
