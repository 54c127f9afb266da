"""Packing of ids: round trips of every width, the layout, wrong input."""

import math

import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.files import bit_packing


@pytest.mark.parametrize(
  "sizes",
  [(2,), (1000,), (2**18,), (512, 512), (3, 1, 64000), (2**63,), (1,)]
  + [(2**w - 1, 2**w) for w in range(1, 63, 7)],
  ids=str,
)
def test_ids_come_back_and_take_no_more_bits_than_they_need(sizes):
  rng = np.random.default_rng(0)
  shape = (3, 5, 7)
  ids = np.stack([rng.integers(0, s, shape) for s in sizes], axis=-1)
  ids[0, 0, 0], ids[-1, -1, -1] = 0, np.array(sizes) - 1
  data = bit_packing.pack(ids, sizes)
  need = math.prod(shape) * sum(math.ceil(math.log2(s)) for s in sizes)
  assert (
    len(data) == -(-need // 8) == bit_packing.packed_bytes(ids.shape, sizes)
  )
  np.testing.assert_array_equal(bit_packing.unpack(data, ids.shape, sizes), ids)


def test_the_lowest_bit_comes_first():
  assert bit_packing.pack(np.array([[1, 0], [5, 1]]), (8, 2)) == bytes(
    [0b11010001]
  )
  assert bit_packing.pack(np.array([[1], [2]]), (1024,)) == bytes([1, 8, 0])


def test_long_streams_are_packed_in_pieces(monkeypatch):
  ids = np.arange(1000)[:, None]
  whole = bit_packing.pack(ids, (1000,))
  monkeypatch.setattr(bit_packing, "ROWS", 24)
  assert bit_packing.pack(ids, (1000,)) == whole
  np.testing.assert_array_equal(
    bit_packing.unpack(whole, ids.shape, (1000,)), ids
  )


def test_no_ids_are_no_bytes():
  assert bit_packing.pack(np.zeros((0, 2), np.int32), (4, 4)) == b""
  assert bit_packing.unpack(b"", (3, 0, 2), (4, 4)).shape == (3, 0, 2)


@pytest.mark.parametrize(
  "call, named",
  [
    (
      lambda: bit_packing.pack(np.array([[1000]]), (1000,)),
      ["1000..1000", "0..999"],
    ),
    (lambda: bit_packing.pack(np.array([[-1]]), (1000,)), ["-1..-1", "0..999"]),
    (lambda: bit_packing.pack(np.array([1, 2, 3]), (8, 8)), ["(3,)", "(8, 8)"]),
    (lambda: bit_packing.pack(np.zeros((1, 0), int), ()), ["(1, 0)", "()"]),
    (lambda: bit_packing.pack(np.array([[0]]), (0,)), [0, "1..2^63"]),
    (
      lambda: bit_packing.unpack(b"ab", (3, 1), (256,)),
      [2, "(3, 1)", "(256,)", 3],
    ),
    (lambda: bit_packing.unpack(b"\xff", (1, 1), (8,)), ["bits"]),
    (lambda: bit_packing.unpack(b"\x07", (1, 1), (6,)), [7, "0..5"]),
  ],
)
def test_wrong_input_names_value_and_cure(call, named):
  with error_names(ValueError, *named):
    call()


def test_ids_must_be_integers():
  with error_names(TypeError, "float64"):
    bit_packing.pack(np.zeros((1, 1)), (8,))
