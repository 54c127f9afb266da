"""Coming into a run of several processes, and leaving it.

`join` makes this process one of a run (jax.distributed) and watches over it:
what fails on one process ends all of them, with its message.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax
from jax._src import distributed  # the service has no public name

from magvit_jax import messages
from magvit_jax.distributed import clusters, processes

PATIENCE = 300  # seconds until all processes have come
HEARTBEAT = 30  # seconds of silence after which JAX ends the others
QUIET = 12.0  # seconds of silence that are told
POLL = 2.0  # seconds between looks at what the others tell

_BEATS = f"{processes.ROOT}/beat"
_FAILED = f"{processes.ROOT}/failed"
# What the runtime raises, by the first word: gloo errors come as ValueError.
_RUNTIME = re.compile(
  r"(UNKNOWN|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL"
  r"|FAILED_PRECONDITION): "
)


@contextlib.contextmanager
def join(place: clusters.Place | None) -> Iterator[None]:
  """Within it, this process is one of a run.

  It comes before anything of JAX runs. Errors inside leave the process, see
  `together`.

  Args:
    place: of `clusters.find`; None, or one of one, is a process alone.

  Raises:
    ValueError: JAX finds no cluster where it was asked for.
  """
  if place is None or place.count == 1:
    yield
    return
  # A process that fails to start need not wait for the others to notice.
  with together():
    _initialize(place)
    watch = _Watch()
    watch.start()
    try:
      yield
    finally:
      watch.close()


@contextlib.contextmanager
def together() -> Iterator[None]:
  """An error inside ends this process at once, and tells the others.

  Nothing above is unwound: closing a checkpoint, and leaving Python, wait for
  processes that are stuck or gone. Alone, errors pass.
  """
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    lost = isinstance(error, processes.LostError)
    if not lost and not distributed.global_state.client:
      raise
    _leave(error)


def _initialize(place: clusters.Place) -> None:
  """jax.distributed.initialize, with an end to its waiting and clear errors."""
  # JAX itself would end the process by a fatal error in C++.
  alarm = threading.Timer(PATIENCE, _nobody_came, [place])
  alarm.daemon = True
  alarm.start()
  try:
    jax.distributed.initialize(
      place.coordinator or None,
      place.count,
      place.index,
      cluster_detection_method=None if place.detect else "deactivate",
      initialization_timeout=PATIENCE + 60,
      heartbeat_timeout_seconds=HEARTBEAT,
    )
  except (RuntimeError, ValueError) as error:
    if place.detect:
      raise ValueError(clusters.NOTHING_FOUND.format(error=error)) from error
    raise processes.LostError(
      f"{place} could not start: {_one_line(error)}. Is the port of "
      f"{place.coordinator} free, on the host of process 0?"
    ) from error
  finally:
    alarm.cancel()


def _nobody_came(place: clusters.Place) -> None:
  if place.index and not _answers(place.coordinator):
    text = f"no process 0 answers at {place.coordinator}"
  else:
    text = "not all of the processes have come"
  _exit(
    1,
    f"{place}: {text} within {PATIENCE} s. Start all of them with the same "
    "--coordinator and --processes, and each with its own --process; hosts "
    "must reach that port",
  )


def _answers(address: str) -> bool:
  host, port = clusters.split(address)
  try:
    socket.create_connection((host, port), timeout=5).close()
  except OSError:
    return False
  return True


class _Watch(threading.Thread):
  """Looks what the others tell, and shows them that this process lives.

  JAX ends a run of which a process is silent for HEARTBEAT seconds, in words
  that are not clear; this says in time which one it is.
  """

  def __init__(self):
    super().__init__(daemon=True, name="magvit_jax processes")
    self.closed = threading.Event()
    self.beats: dict[int, tuple[str, float]] = {}
    self.silent: set[int] = set()

  def run(self) -> None:
    for beat in itertools.count():
      if self.closed.wait(POLL):
        return
      try:
        processes.client().key_value_set(
          _beat_key(), f"{beat}", allow_overwrite=True
        )
        self._listen(processes.client().key_value_dir_get(_BEATS))
        failed = _failed()
      except jax.errors.JaxRuntimeError:
        # Process 0 is gone: JAX ends this one too.
        continue
      if failed and not self.closed.wait(POLL):
        # This process had time to say something better.
        _exit(failed[1], f"{processes.title()}{failed[0]}")

  def close(self) -> None:
    """The run is over: silence means nothing any more."""
    self.closed.set()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      processes.client().key_value_set(
        _beat_key(), "over", allow_overwrite=True
      )

  def _listen(self, beats: list[tuple[str, str]]) -> None:
    now = time.monotonic()
    for key, beat in beats:
      number = processes.number(key)
      before, since = self.beats.get(number, ("", now))
      if beat != before or beat == "over":
        self.beats[number] = (beat, now)
        self.silent.discard(number)
      elif now - since > QUIET and number not in self.silent:
        self.silent.add(number)
        _say(
          f"{processes.title()}process {number} has been silent for "
          f"{now - since:.0f} s: it was killed, or its host or network is "
          f"down. Unless it comes back, JAX ends the run after {HEARTBEAT} s "
          "of silence; the last checkpoint counts"
        )


def _leave(error: BaseException) -> NoReturn:
  """Tells why, to the user and to the other processes, and ends."""
  if "--debug" in sys.argv:
    traceback.print_exception(error)
  if isinstance(error, KeyboardInterrupt):
    _exit(130, f"{processes.title()}interrupted", tell="it was interrupted")
  if isinstance(error, processes.LostError):
    _exit(1, f"{processes.title()}{error}")
  if _is_of_runtime(error):
    found = _failed(patience=2 * POLL)
    text = found[0] if found else _lost(error)
    _exit(found[1] if found else 1, f"{processes.title()}{text}")
  if isinstance(error, messages.USER_ERRORS):
    text = messages.text(error)
    _exit(2, f"{processes.title()}{text}", tell=text)
  traceback.print_exception(error)
  text = f"{type(error).__name__}: {_one_line(error)}"
  _exit(1, f"{processes.title()}{text}", tell=text)


def _lost(error: BaseException) -> str:
  return (
    f"lost the other processes ({_one_line(error)}). One of them has ended "
    "without a word, or the network is down: look at what they printed. The "
    "last checkpoint counts: start all of them again with the same command"
  )


def _is_of_runtime(error: BaseException | None) -> bool:
  """Whether a collective failed, at the root of it."""
  while error is not None:
    if _RUNTIME.match(str(error)):
      return True
    error = error.__cause__ or error.__context__
  return False


def _failed(patience: float = 0.0) -> tuple[str, int] | None:
  """What another process told of its end, and the status to end with."""
  until = time.monotonic() + patience
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    while True:
      for key, value in processes.client().key_value_dir_get(_FAILED):
        if processes.number(key) != processes.index():
          code, text = json.loads(value)
          return f"process {processes.number(key)} failed: {text}", code
      if time.monotonic() >= until:
        return None
      time.sleep(POLL / 4)
  return None


def _exit(code: int, text: str, tell: str = "") -> NoReturn:
  """The one way out: no thread, barrier or destructor can hold it up."""
  _say(f"error: {text}")
  state = distributed.global_state
  if tell and state.client:
    note = json.dumps([code if code < 128 else 1, tell])
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      key = f"{_FAILED}/{processes.index()}"
      state.client.key_value_set(key, note, allow_overwrite=True)
  if state.service:
    # With process 0 the service ends by which the others learn of it.
    time.sleep(2.5 * POLL)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _say(text: str) -> None:
  # One write, which the lines of other processes cannot tear.
  sys.stdout.flush()
  os.write(2, f"{text}\n".encode())


def _beat_key() -> str:
  return f"{_BEATS}/{processes.index()}"


def _one_line(error: BaseException) -> str:
  text = " ".join(str(error).split())  # of C++, often many
  return text if len(text) <= 300 else text[:297] + "..."
