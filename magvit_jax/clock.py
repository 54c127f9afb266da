"""Where the wall time of a run goes, and how fast its steps are."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

PARTS = ("compile", "data", "step", "eval", "checkpoint")


class _Mark(NamedTuple):
  step: int
  wall: float
  data: float


class Clock:
  """Wall seconds by what they were spent on.

  Attributes:
    seconds: total by part; those of `PARTS`.
  """

  def __init__(self):
    self.seconds = dict.fromkeys(PARTS, 0.0)
    self.mark = _Mark(0, time.perf_counter(), 0.0)

  @contextlib.contextmanager
  def __call__(self, part: str) -> Iterator[None]:
    """Adds what the body takes to a part."""
    begin = time.perf_counter()
    try:
      yield
    finally:
      spent = time.perf_counter() - begin
      self.seconds[part] += spent
      if part not in ("data", "step"):
        # Evaluating and saving are not part of the speed of training.
        self.mark = self.mark._replace(wall=self.mark.wall + spent)

  def restart(self, step: int) -> None:
    """Measures the speed from here on."""
    self.mark = _Mark(step, time.perf_counter(), self.seconds["data"])

  def speed(self, step: int, batch: int) -> dict[str, float]:
    """Means per step since the last call: examples/s, seconds, data share."""
    before = self.mark
    self.restart(step)
    steps = max(step - before.step, 1)
    wall = max(self.mark.wall - before.wall, 1e-9)
    waited = self.mark.data - before.data
    return {
      "examples_per_second": steps * batch / wall,
      "data_share": waited / wall,
      "seconds_data": waited / steps,
      "seconds_step": wall / steps,
    }
