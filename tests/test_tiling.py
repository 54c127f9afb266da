"""Tiles cover a frame once, blend to one, and pieces lose no frame."""

import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.inference import tiling


@pytest.mark.parametrize("tile,overlap", [(8, 2), (16, 4), (12, 0), (9, 1)])
def test_spans_keep_every_position_once_with_context(tile, overlap):
  for length in range(1, 80):
    cut = tiling.spans(length, tile, overlap)
    kept = [x for span in cut for x in range(span.first, span.last)]
    assert kept == list(range(length))
    assert {span.stop - span.start for span in cut} == {min(tile, length)}
    for left, right in zip(cut, cut[1:], strict=False):
      assert left.stop - right.start >= overlap
      # Both neighbours see at least half of the overlap beyond the seam.
      assert left.stop - left.last >= overlap // 2
      assert right.first - right.start >= overlap // 2


@pytest.mark.parametrize("tile,overlap", [(8, 2), (16, 4), (12, 0), (9, 1)])
def test_weights_sum_to_one_and_ignore_the_border(tile, overlap):
  for length in range(1, 60):
    cut = tiling.spans(length, tile, overlap)
    total = np.zeros(length * 4)
    made = tiling.weights(cut, overlap, 4)
    for span, weight in zip(cut, made, strict=True):
      total[span.start * 4 : span.stop * 4] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    if len(cut) > 1 and overlap > 1:
      assert made[0][-1] == 0 and made[1][0] == 0


@pytest.mark.parametrize("overlap", [24, 17, -8])
def test_tiles_that_share_too_much_are_refused_in_pixels(overlap):
  grid, strides = (100, 4), (8, 8)
  with error_names(ValueError, 64, overlap, 8, "0..16"):
    tiling.tiles(grid, strides, 64, overlap)
  # A frame that is one tile has no neighbours to share with.
  assert len(tiling.tiles((8, 4), strides, 64, overlap)) == 1
  assert len(tiling.tiles(grid, strides, 96, 24)) == 11


@pytest.mark.parametrize("cuts", [[23], [1] * 23, [5, 1, 17], [9, 4, 10]])
def test_regroup_gives_the_same_pieces_however_they_arrive(cuts):
  video = np.arange(2 * 23).reshape(2, 23)
  pieces = np.split(video, np.cumsum(cuts)[:-1], axis=1)
  out = list(tiling.regroup(pieces, 9, 8))
  assert [part.shape[1] for part in out] == [9, 8, 6]
  np.testing.assert_array_equal(np.concatenate(out, axis=1), video)


def test_pad_to_repeats_the_last_entry():
  out = tiling.pad_to(np.array([[1, 2, 3]]), 1, 5)
  np.testing.assert_array_equal(out, [[1, 2, 3, 3, 3]])
