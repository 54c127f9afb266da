"""Overlapping tiles over a frame, and pieces over time.

A frame too big for memory is cut into tiles of one size, so one program
serves all of them. Neighbouring tiles overlap; in the overlap ids are taken
from the tile whose border is further away, pixels are blended linearly. A
frame that fits in one tile is a single tile without any of this.
"""

import itertools
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
    overlap: positions that neighbours share at least, at most a quarter of a
      tile; the tiles are spread evenly, so most share a little more.
  """
  if length <= tile:
    return [Span(0, length, 0, length)]
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


def weights(cut: list[Span], overlap: int, scale: int) -> list[np.ndarray]:
  """Blending weights of each tile in pixels; they sum to one everywhere.

  A tile's weight falls linearly across the seam with its neighbour, over half
  of the least overlap: the outermost pixels, which lack context, do not count.

  Args:
    cut: the tiles of one axis.
    overlap: what `spans` made them with.
    scale: pixels per token position.

  Returns:
    One float32 array [(stop - start) * scale] per tile.
  """
  width = max(1, overlap // 2 * scale)
  out = []
  for tile in cut:
    x = np.arange(tile.start * scale, tile.stop * scale) + 0.5
    weight = np.ones(len(x))
    if tile.first > tile.start:
      weight *= np.clip((x - tile.first * scale) / width + 0.5, 0, 1)
    if tile.last < tile.stop:
      weight *= 1 - np.clip((x - tile.last * scale) / width + 0.5, 0, 1)
    out.append(weight.astype(np.float32))
  return out


class Tile(NamedTuple):
  """One tile of a frame.

  Attributes:
    row, col: its spans in token positions.
    weight: float32 [h w 1], blending weights of its pixels.
  """

  row: Span
  col: Span
  weight: np.ndarray

  def view(self, array: np.ndarray, sh: int = 1, sw: int = 1) -> np.ndarray:
    """The tile's part of [b n h w …] with (sh, sw) entries per position."""
    rows = slice(self.row.start * sh, self.row.stop * sh)
    cols = slice(self.col.start * sw, self.col.stop * sw)
    return array[:, :, rows, cols]

  def put(self, ids: np.ndarray, part: np.ndarray) -> None:
    """Writes those ids of `part` [b n H W f] that the tile keeps."""
    (a, _, first, last), (c, _, left, right) = self.row, self.col
    kept = part[:, :, first - a : last - a, left - c : right - c]
    ids[:, :, first:last, left:right] = kept


def tiles(
  grid: tuple[int, int],
  strides: tuple[int, int],
  tile: int,
  overlap: int,
) -> list[Tile]:
  """Cuts a frame into tiles.

  Args:
    grid: token positions (H, W) of the frame.
    strides: pixels (sh, sw) per token position.
    tile: lines and columns of a tile in pixels, at most.
    overlap: pixels that neighbours share at least.

  Raises:
    ValueError: a tile that would share more than a quarter with a neighbour.
  """
  axes = []
  for length, stride in zip(grid, strides, strict=True):
    shared = -(-overlap // stride)
    held = max(1, tile // stride)
    if length > held and not 0 <= 4 * shared <= held:
      raise ValueError(
        f"tiles of {tile} pixels cannot overlap by {overlap} at {stride} "
        "pixels per token: neighbours may share a quarter of a tile; use tiles "
        f"of {max(4 * shared, 1) * stride} pixels or more, or an overlap in "
        f"0..{held // 4 * stride}"
      )
    cut = spans(length, held, shared)
    axes.append(list(zip(cut, weights(cut, shared, stride), strict=True)))
  return [
    Tile(row, col, (above[:, None] * across)[..., None])
    for (row, above), (col, across) in itertools.product(*axes)
  ]


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
