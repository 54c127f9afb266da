"""SIGTERM and ctrl-C as a request to stop that the loop reads at each step."""

import os
import signal as signals
import threading

import jax
from jax.experimental import multihost_utils

SIGNALS = (signals.SIGTERM, signals.SIGINT)


def name(number: int) -> str:
  """'SIGTERM' for 15."""
  return signals.Signals(number).name


class Stop:
  """While entered, the first signal sets `signal`; a second one quits.

  Signals reach the main thread only: elsewhere this never asks to stop. With
  several processes, jax's preemption service makes all of them stop at the
  same step.
  """

  def __init__(self):
    self.signal = 0
    self.before: dict[int, object] = {}

  def __enter__(self) -> "Stop":
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      self.before = {s: signals.signal(s, self._request) for s in SIGNALS}
    return self

  def __exit__(self, *exc) -> None:
    self._restore()

  def requested(self, step: int) -> bool:
    """Whether to stop after `step`."""
    if jax.process_count() > 1:
      if multihost_utils.reached_preemption_sync_point(step):
        self.signal = int(signals.SIGTERM)
    return bool(self.signal)

  def _request(self, number, frame) -> None:
    del frame
    self.signal = number
    self._restore()
    text = (
      f"\n{name(number)}: stopping after this step and saving (once more quits "
      "at once)\n"
    )
    # A handler may interrupt a print, and prints are not re-entrant.
    os.write(2, text.encode())

  def _restore(self) -> None:
    for number, handler in self.before.items():
      signals.signal(number, handler)
    self.before = {}
