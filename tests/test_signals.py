"""Signals: the second one quits, other threads are left alone."""

import os
import signal
import threading

import pytest

from magvit_jax.distributed import preemption


def test_second_signal_quits(capfd):
  # A shell starts what it puts in the background with SIGINT ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt), preemption.Stop() as stop:
      os.kill(os.getpid(), signal.SIGINT)
      assert stop.requested(1) and "SIGINT" in capfd.readouterr().err
      os.kill(os.getpid(), signal.SIGINT)
  finally:
    signal.signal(signal.SIGINT, before)


def test_signals_are_left_alone_outside_the_main_thread():
  before = signal.getsignal(signal.SIGTERM)
  seen = []

  def body():
    with preemption.Stop() as stop:
      seen.append((signal.getsignal(signal.SIGTERM), stop.requested(1)))

  thread = threading.Thread(target=body)
  thread.start()
  thread.join()
  assert seen == [(before, False)]


def test_ctrl_c_on_one_of_several_stops_them_all(monkeypatch):
  """It becomes the SIGTERM that JAX looks for; the second one quits."""
  monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
  seen = []
  handlers = {
    signal.SIGTERM: lambda *_: seen.append("SIGTERM"),
    signal.SIGINT: signal.default_int_handler,
  }
  before = {n: signal.signal(n, handler) for n, handler in handlers.items()}
  try:
    with pytest.raises(KeyboardInterrupt), preemption.Stop() as stop:
      os.kill(os.getpid(), signal.SIGINT)
      assert seen == ["SIGTERM"] and not stop.signal
      os.kill(os.getpid(), signal.SIGINT)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
