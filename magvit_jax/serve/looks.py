"""What a tokenizer makes of a clip."""

import math
from typing import Any, NamedTuple

import numpy as np

from magvit_jax.data import transforms
from magvit_jax.metrics import averages
from magvit_jax.serve import uploads


class Look(NamedTuple):
  """A clip's reconstruction.

  Attributes:
    recon: uint8 [n h w 3], of all frames that were read.
    ids: int32 [T H W f].
    sizes: ids per factor.
    used: how many tokens differ from one another.
    bits: per pixel, of ids that all take the same room.
    psnr: dB, the mean over frames.
  """

  recon: np.ndarray
  ids: np.ndarray
  sizes: tuple[int, ...]
  used: int
  bits: float
  psnr: float


def look(tok: Any, clip: uploads.Clip) -> Look:
  """Encodes and decodes a clip.

  Args:
    tok: a `Codec`.
    clip: of any length and size.
  """
  video = clip.video
  n, h, w, _ = video.shape
  ids = np.concatenate(list(tok.encode_stream([video[None]])), axis=1)
  made, scores, done = [], [], 0
  for piece in tok.decode_stream([ids], frames=n, size=(h, w)):
    part = video[None, done : done + piece.shape[1]]
    scores.append(averages.psnr_per_frame(transforms.to_float(part), piece)[0])
    made.append(transforms.to_uint8(piece[0]))
    done += piece.shape[1]
  places = ids[0].reshape(-1, len(tok.sizes))
  bits = len(places) * sum(math.log2(size) for size in tok.sizes)
  return Look(
    recon=np.concatenate(made),
    ids=ids[0],
    sizes=tok.sizes,
    used=len(np.unique(places, axis=0)),
    bits=bits / (n * h * w),
    psnr=float(np.concatenate(scores).mean()),
  )
