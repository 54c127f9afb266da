"""What a tokenizer makes of a clip."""

import math
from typing import Any, NamedTuple

import numpy as np

from magvit_jax.data import transforms
from magvit_jax.metrics import averages
from magvit_jax.serve import films, uploads


class Look(NamedTuple):
  """A clip and its reconstruction.

  Attributes:
    original, recon: films of the same frames.
    tokens: PNG of the ids.
    grid: (T, H, W) of the ids.
    sizes: ids per factor.
    used: how many ids differ from one another.
    bits: per pixel, of ids that all take the same room.
    psnr: dB, the mean over frames.
  """

  original: films.Film
  recon: films.Film
  tokens: bytes
  grid: tuple[int, int, int]
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
    original=films.film(video, clip.fps),
    recon=films.film(np.concatenate(made), clip.fps),
    tokens=films.token_picture(ids[0]),
    grid=ids.shape[1:4],
    sizes=tok.sizes,
    used=len(np.unique(places, axis=0)),
    bits=bits / (n * h * w),
    psnr=float(np.concatenate(scores).mean()),
  )
