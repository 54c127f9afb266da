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

  Signals reach the main thread only: elsewhere this never asks to stop.

  With several processes SIGTERM belongs to JAX's preemption service: one on
  any process makes all of them stop, as by SIGTERM, at the same step, a second
  or so later. Until then a second SIGTERM does nothing; ctrl-C twice quits.
  """

  def __init__(self):
    self.signal = 0
    self.before: dict[int, object] = {}

  def __enter__(self) -> "Stop":
    if threading.current_thread() is threading.main_thread():
      own = SIGNALS if jax.process_count() == 1 else (signals.SIGINT,)
      self.before = {s: signals.signal(s, self._request) for s in own}
    return self

  def __exit__(self, *exc) -> None:
    self._restore()

  def requested(self, step: int) -> bool:
    """Whether to stop after `step`; all processes ask it of each step."""
    if jax.process_count() > 1:
      if multihost_utils.reached_preemption_sync_point(step):
        self.signal = int(signals.SIGTERM)
        # JAX's handler has done its work, and would swallow a second one.
        if threading.current_thread() is threading.main_thread():
          signals.signal(signals.SIGTERM, signals.SIG_DFL)
    return bool(self.signal)

  def _request(self, number, frame) -> None:
    del frame
    self._restore()
    if jax.process_count() == 1:
      self.signal = number
    else:
      os.kill(os.getpid(), signals.SIGTERM)
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
