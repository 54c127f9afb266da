"""Ids as bytes: each factor takes the bits its size needs and no more.

The stream holds the ids of one position after the other, factor by factor, the
lowest bit first and the first bit in the lowest bit of a byte; the last byte is
filled with zeros. Sizes need not be powers of two: 1000 ids take 10 bits.
"""

import math

import numpy as np

ROWS = 1 << 18  # positions unpacked to single bits at a time; a multiple of 8


def width(size: int) -> int:
  """Bits of one of `size` ids; 0 where there is only one.

  Raises:
    ValueError: fewer than 1, or more than 2^63 ids.
  """
  if not 1 <= size <= 2**63:
    raise ValueError(f"bits: a size is {size}; it must lie in 1..2^63")
  return (size - 1).bit_length()


def packed_bytes(shape: tuple[int, ...], sizes: tuple[int, ...]) -> int:
  """Bytes that ids of this shape [… f] take."""
  positions = math.prod(_positions(shape, sizes))
  return -(-positions * sum(map(width, sizes)) // 8)


def pack(ids: np.ndarray, sizes: tuple[int, ...]) -> bytes:
  """Packs ids.

  Args:
    ids: integers [… f], factor k in 0 .. sizes[k] - 1.
    sizes: number of ids per factor.

  Raises:
    TypeError: ids are not integers.
    ValueError: another number of factors, or an id out of range.
  """
  ids = np.asarray(ids)
  if not np.issubdtype(ids.dtype, np.integer):
    raise TypeError(f"bits: ids are {ids.dtype}; they must be integers")
  _positions(ids.shape, sizes)
  shifts, factors = _layout(sizes)
  rows = ids.reshape(-1, len(sizes))
  for k, size in enumerate(sizes):
    column = rows[:, k]
    if len(column) and not 0 <= column.min() <= column.max() < size:
      raise ValueError(
        f"bits: ids of factor {k} lie in {column.min()}..{column.max()}; they "
        f"must lie in 0..{size - 1}: the ids come from another quantizer"
      )
  parts = []
  for start in range(0, len(rows), ROWS):
    part = rows[start : start + ROWS].astype(np.uint64)
    on = (part[:, factors] >> shifts) & np.uint64(1)
    parts.append(np.packbits(on.astype(np.uint8), bitorder="little"))
  return b"".join(part.tobytes() for part in parts)


def unpack(
  data: bytes, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> np.ndarray:
  """Undoes `pack`: int64 ids of `shape` [… f].

  Raises:
    ValueError: data of another length than the shape needs, bits set behind
      the end, or an id out of range: the data is not of these sizes.
  """
  count = math.prod(_positions(shape, sizes))
  if len(data) != packed_bytes(shape, sizes):
    raise ValueError(
      f"bits: {len(data)} bytes cannot be ids of shape {shape} and sizes "
      f"{sizes}, which take {packed_bytes(shape, sizes)}; the data is cut off "
      "or of another shape"
    )
  shifts, factors = _layout(sizes)
  bits = len(shifts)
  ids = np.zeros((count, len(sizes)), np.uint64)
  raw = np.frombuffer(data, np.uint8)
  for start in range(0, count, ROWS):
    stop = min(start + ROWS, count)
    piece = raw[start * bits // 8 : -(-stop * bits // 8)]
    on = np.unpackbits(piece, bitorder="little")
    if on[(stop - start) * bits :].any():
      raise ValueError("bits: bits are set behind the last id; data is damaged")
    on = (
      on[: (stop - start) * bits].reshape(stop - start, bits).astype(np.uint64)
    )
    for k in range(len(sizes)):
      mine = factors == k
      ids[start:stop, k] = np.sum(
        on[:, mine] << shifts[mine], axis=1, dtype=np.uint64
      )
  top = ids.max(axis=0) if count else np.zeros(len(sizes), np.uint64)
  for k, size in enumerate(sizes):
    if int(top[k]) >= size:
      raise ValueError(
        f"bits: an id of factor {k} is {top[k]}, out of 0..{size - 1}; the "
        "data is of other sizes or damaged"
      )
  return ids.astype(np.int64).reshape(shape)


def _layout(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """For each bit of a position: its shift, and the factor it is of."""
  widths = [width(size) for size in sizes]
  shifts = np.concatenate([np.arange(w, dtype=np.uint64) for w in widths])
  return shifts, np.repeat(np.arange(len(sizes)), widths)


def _positions(
  shape: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[int, ...]:
  """The shape without the factors; ValueError where they do not fit."""
  if not sizes or not shape or shape[-1] != len(sizes):
    raise ValueError(
      f"bits: ids of shape {shape} do not have the {len(sizes)} factors of "
      f"sizes {sizes} as their last axis"
    )
  return tuple(shape[:-1])
