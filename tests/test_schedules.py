"""Mask schedules and their count tables."""

import jax
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.decoding import schedules

# Of the official code at N = 1024, K = 12; its last count, 1, is
# never used, ours is 0: nothing is masked again after the last step.
GOLDEN = {
  "cosine": [1015, 989, 946, 886, 812, 724, 623, 511, 391, 265, 133],
  "uniform": [938, 853, 768, 682, 597, 512, 426, 341, 256, 170, 85],
  "exp": [1022, 1020, 1018, 1013, 1006, 992, 966, 922, 842, 701, 449],
  "pow2": [1016, 995, 960, 910, 846, 768, 675, 568, 448, 312, 163],
}
names = pytest.mark.parametrize("name", schedules.SCHEDULES)


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_are_the_published_ones(name):
  assert schedules.counts(name, 1024, 12).tolist() == [*GOLDEN[name], 0]


def test_counts_of_log_start_low_and_fall():
  got = schedules.counts("log", 1024, 12)
  # -log2(r) / 10 at r = 1/12 and 1/2
  assert got[0] == int(1024 * np.log2(12) / 10)
  assert got[5] == 102


@names
@pytest.mark.parametrize("steps", [1, 2, 7, 12])
def test_every_row_falls_to_zero_and_never_restarts(name, steps):
  table = schedules.count_table(name, 40, steps)
  assert table.shape == (41, steps) and table.dtype == np.int32
  np.testing.assert_array_equal(table[:, -1], 0)
  np.testing.assert_array_equal(table[0], 0)
  # Before the last step at least one token is masked, and each step decides
  # one token or more, until one is left (the official code masks all again).
  before = np.concatenate([np.arange(41)[:, None], table[:, :-1]], axis=1)
  inner = table[1:, :-1]
  assert (inner >= 1).all()
  assert ((inner < before[1:, :-1]) | (inner == 1)).all()
  assert (table <= before).all()


def test_rows_are_those_of_a_clip_with_as_many_unknowns():
  table = schedules.count_table("exp", 30, 6)
  for n in (1, 2, 17, 30):
    np.testing.assert_array_equal(table[n], schedules.counts("exp", n, 6))


def test_guidance_rises_to_one_and_is_constant_without_power():
  np.testing.assert_array_equal(schedules.guidance_ramp(0.0, 5), np.ones(5))
  ramp = schedules.guidance_ramp(4.0, 4)
  want = (1 - np.cos(np.pi * np.array([1, 16, 81, 256]) / 256)) / 2
  np.testing.assert_allclose(ramp, want, rtol=1e-4)
  assert ramp.dtype == np.float32 and ramp[-1] == 1


@names
def test_gamma_falls_from_one_within_its_bounds(name):
  r = np.linspace(0, 1, 33, dtype=np.float32)
  got = schedules.gamma(name, r, 64, np)
  assert got.dtype == np.float32
  assert got[0] == (1 - 1 / 64 if name == "exp" else 1)
  assert got[-1] < 0.02 and (got >= 1e-6).all()
  assert (np.diff(got) <= 0).all()
  n = np.asarray([[0], [1], [64]])
  want = schedules.gamma(name, r, n, np)
  compiled = jax.jit(lambda r, n: schedules.gamma(name, r, n))(r, n)
  np.testing.assert_allclose(compiled, want, atol=1e-5)
  assert np.isfinite(want).all()


def test_an_unknown_schedule_is_refused_with_those_there_are():
  with error_names(ValueError, "schedule", "cosin", "cosine", "uniform"):
    schedules.gamma("cosin", 0.5, 10)
