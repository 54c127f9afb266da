"""Where the wall time of a run goes, and how fast its steps are."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

PARTS = ("compile", "data", "step", "eval", "checkpoint")


class Now(NamedTuple):
  """What a run is at. A new object is a sign of progress.

  Attributes:
    part: one of `PARTS`, or 'other' between them.
    first: whether the part is entered for the first time.
  """

  part: str
  first: bool


class _Mark(NamedTuple):
  step: int
  wall: float
  data: float


class Clock:
  """Wall seconds by what they were spent on.

  Attributes:
    seconds: total of this session by part; those of `PARTS`.
    now: what the run is at; another thread may read it.
  """

  def __init__(self):
    self.begun = time.perf_counter()
    self.seconds = dict.fromkeys(PARTS, 0.0)
    self.written = dict.fromkeys((*PARTS, "other"), 0.0)
    self.earlier = (0.0, 0.0)
    self.mark = _Mark(0, self.begun, 0.0)
    self.now = Now("other", False)

  @contextlib.contextmanager
  def __call__(self, part: str) -> Iterator[None]:
    """Adds what the body takes to a part."""
    begin = time.perf_counter()
    self.now = Now(part, not self.seconds[part])
    try:
      yield
    finally:
      self.now = Now("other", False)
      spent = time.perf_counter() - begin
      self.seconds[part] += spent
      if part not in ("data", "step"):
        # Evaluating and saving are not part of the speed of training.
        self.mark = self.mark._replace(wall=self.mark.wall + spent)

  def beat(self) -> None:
    """Says that a long part goes on."""
    self.now = Now(*self.now)

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

  def resume(self, rows: Sequence[Mapping[str, float]]) -> None:
    """Counts the sessions before this one, from the rows of `take`."""
    parts = add_up(rows)
    self.earlier = (parts.get("step", 0.0), sum(parts.values()))

  def take(self) -> dict[str, float]:
    """The 'time' row: seconds since the last call by part, and goodput.

    'seconds_other' is what no part has (imports inside, printing); 'goodput'
    is the share of all seconds so far, restarts included, that was spent in
    steps. A crash leaves no row: what it lost is in none of the sums.
    """
    wall = time.perf_counter() - self.begun
    total = {**self.seconds, "other": wall - sum(self.seconds.values())}
    new = {f"seconds_{k}": v - self.written[k] for k, v in total.items()}
    self.written = total
    step, everything = self.earlier
    return new | {"goodput": (step + total["step"]) / (everything + wall)}


def add_up(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Seconds by part over 'time' rows."""
  parts: dict[str, float] = {}
  for row in rows:
    for key, value in row.items():
      if key.startswith("seconds_"):
        part = key.removeprefix("seconds_")
        parts[part] = parts.get(part, 0.0) + value
  return parts
