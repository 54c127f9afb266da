"""Overlapping tiles over one axis of a frame, and pieces over time.

A frame too big for memory is cut into tiles of one size, so one program
serves all of them. Neighbouring tiles overlap; in the overlap ids are taken
from the tile whose border is further away, pixels are blended linearly. A
frame that fits in one tile is a single tile without any of this.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
  """One tile along one axis, in token positions.

  Attributes:
    start, stop: what the tile reads.
    first, last: the part of it whose ids are kept; over all tiles these parts
      meet without gap or overlap.
  """

  start: int
  stop: int
  first: int
  last: int


def spans(length: int, tile: int, overlap: int) -> list[Span]:
  """Tiles of equal size covering `length` token positions.

  Args:
    length: token positions of the axis.
    tile: positions of one tile.
    overlap: positions that neighbours share at least; the tiles are spread
      evenly, so most share a little more.

  Raises:
    ValueError: the overlap leaves a tile nothing of its own.
  """
  if length <= tile:
    return [Span(0, length, 0, length)]
  if not 0 <= 2 * overlap < tile:
    raise ValueError(
      f"tiles of {tile} positions cannot overlap by {overlap} on both sides; "
      "use bigger tiles or less overlap"
    )
  count = -(-(length - overlap) // (tile - overlap))
  starts = [i * (length - tile) // (count - 1) for i in range(count)]
  # The seam of two neighbours lies in the middle of what they share.
  seams = [
    (a + tile + b) // 2 for a, b in zip(starts, starts[1:], strict=False)
  ]
  return [
    Span(start, start + tile, first, last)
    for start, first, last in zip(
      starts, [0, *seams], [*seams, length], strict=True
    )
  ]


def weights(tiles: list[Span], scale: int) -> list[np.ndarray]:
  """Blending weights of each tile in pixels; they sum to one everywhere.

  Args:
    tiles: of one axis.
    scale: pixels per token position.

  Returns:
    One float32 array [(stop - start) * scale] per tile: one inside, falling
    linearly over what it shares with a neighbour.
  """
  out = [
    np.ones((tile.stop - tile.start) * scale, np.float32) for tile in tiles
  ]
  for i in range(len(tiles) - 1):
    shared = (tiles[i].stop - tiles[i + 1].start) * scale
    ramp = (np.arange(shared, dtype=np.float32) + 0.5) / shared
    # Multiplied, not assigned: short tiles may be shared on both sides.
    out[i][-shared:] *= 1 - ramp
    out[i + 1][:shared] *= ramp
  return out


def regroup(
  pieces: Iterable[np.ndarray], first: int, rest: int
) -> Iterator[np.ndarray]:
  """Cuts a stream of [b n …] pieces into one of `first` and then `rest`.

  The last piece may be shorter. Holds no more than one piece of each kind.
  """
  want, held, count = first, [], 0
  for piece in pieces:
    while piece.shape[1]:
      head, piece = np.split(piece, [want - count], axis=1)
      held.append(head)
      count += head.shape[1]
      if count == want:
        yield _join(held)
        want, held, count = rest, [], 0
  if held:
    yield _join(held)


def pad_to(array: np.ndarray, axis: int, length: int) -> np.ndarray:
  """Repeats the last entry along `axis` until it has `length` entries."""
  missing = length - array.shape[axis]
  if not missing:
    return array
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, missing)
  return np.pad(array, widths, mode="edge")


def _join(pieces: list[np.ndarray]) -> np.ndarray:
  return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
