"""Losses that stand out from those before them.

A step is judged by the logarithm of its main term against the median of the
last `WINDOW` steps, in units of their median deviation, so that neither the
scale of a loss nor one earlier spike matters.
"""

import collections
import math
from collections.abc import Iterable
from typing import NamedTuple

from magvit_jax.losses import reconstruction

WINDOW = 64  # steps that say what is usual
LEAST = 16  # fewer say nothing
# However even a loss is, a batch that is 30 % harder is no spike.
TIMES = 1.3
# Turns a median deviation into the deviation of a normal distribution.
_NORMAL = 1.4826


def main_term(names: Iterable[str]) -> str:
  """The term that is watched, of the names of a run's metrics.

  'loss_l2', else the first by name of the other reconstruction losses, else
  'loss_tokens', else 'loss'.
  """
  present = set(names)
  order = ("loss_l2", *sorted(reconstruction.LOSSES), "loss_tokens")
  return next((term for term in order if term in present), "loss")


class Spike(NamedTuple):
  """A loss that stands out.

  Attributes:
    value: of the step.
    usual: median of the steps before it.
    deviations: robust ones, of the logarithm.
  """

  value: float
  usual: float
  deviations: float


class Spikes:
  """Looks at the losses of a run as they come.

  Args:
    deviations: robust deviations from which a loss is a spike; 0 for never.
  """

  def __init__(self, deviations: float):
    self.deviations = deviations
    self._logs = collections.deque(maxlen=WINDOW)
    self._quiet = WINDOW

  def add(self, value: float) -> Spike | None:
    """The spike that begins with this loss, or None.

    A loss that is not positive is passed over. Those that follow a spike
    within `WINDOW` steps of it belong to it.
    """
    if not self.deviations or not value > 0:
      return None
    spike = self._judge(math.log(value))
    self._logs.append(math.log(value))
    begins = spike is not None and self._quiet >= WINDOW
    self._quiet = 0 if spike else self._quiet + 1
    return spike if begins else None

  def _judge(self, log: float) -> Spike | None:
    if len(self._logs) < LEAST:
      return None
    usual = _middle(self._logs)
    spread = _NORMAL * _middle(abs(x - usual) for x in self._logs)
    above = log - usual
    if above <= max(math.log(TIMES), self.deviations * spread):
      return None
    return Spike(math.exp(log), math.exp(usual), above / max(spread, 1e-3))


def _middle(values: Iterable[float]) -> float:
  # Of so few, sorting is ten times faster than numpy's median.
  values = sorted(values)
  return values[len(values) // 2]
