"""Tells of a run that stands still: no batch, no step, no saving.

A thread looks at what the run is at (`clock.Now`). Where that has not changed
for longer than the config allows, it says so, writes where each thread of the
program stands into WORKDIR/stall_<step>.txt, says so again after twice the
time, four times, and so on, and says when the run goes on. It never ends a run.
"""

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping

from magvit_jax.files import paths
from magvit_jax.monitoring import goodput
from magvit_jax.monitoring.incidents import Incidents

TICK = 5.0  # seconds between two looks, at most
CURES = {
  "data": "is the storage slow, or a file damaged? Then loader.threads and "
  "loader.prefetch help, or a local copy",
  "step": "the device does not answer: with several processes look at what the "
  "others say, one may wait for data or be lost; then stop this one and start "
  "it again",
  "compile": "large programs take long; JAX_COMPILATION_CACHE_DIR keeps them "
  "for the next start",
  "eval": "fewer data.eval_clips or a larger eval.batch take less time; its "
  "clips may be on slow storage",
  "checkpoint": "the storage of the workdir is slow or does not answer",
  "other": "writing metrics, perhaps: is the storage of the workdir slow?",
}
NAMES = {
  "data": "waiting for a batch",
  "step": "waiting for the device",
  "compile": "compiling",
  "eval": "evaluating",
  "checkpoint": "reading or saving a checkpoint",
  "other": "between the steps",
}


def check(cfg: Mapping[str, float]) -> None:
  """ValueError where a value of the config's group `watch` is below 0."""
  for name, value in cfg.items():
    if not value >= 0:
      raise ValueError(
        f"watch.{name} is {value}; it must be 0 (off) or above: set "
        f"--config.watch.{name}"
      )


class Watch:
  """Watches while it is entered.

  Args:
    clock: of the run.
    step: gives the last step that was begun.
    incidents: tells, keeps, and knows the workdir.
    cfg: the config's group `watch`: 'stall_seconds' without a sign of
      progress before it is told, 'compile_seconds' in place of that while
      programs are compiled; 0 for never.
  """

  def __init__(
    self,
    clock: goodput.Clock,
    step: Callable[[], int],
    incidents: Incidents,
    cfg: Mapping[str, float],
  ):
    self.clock, self.step, self.incidents = clock, step, incidents
    self.seconds = {
      False: cfg["stall_seconds"],
      True: cfg["compile_seconds"],
    }
    self._seen, self._waited, self._told = clock.now, 0.0, 0
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

  def __enter__(self) -> "Watch":
    if any(self.seconds.values()):
      self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._ended.set()
    if self._thread.is_alive():
      self._thread.join()

  def look(self, elapsed: float) -> None:
    """Tells what is to be told, `elapsed` seconds after the last look."""
    now = self.clock.now
    if now is not self._seen:
      if self._told:
        self._goes_on(self._seen, self._waited)
      self._seen, self._waited, self._told = now, 0.0, 0
      return
    self._waited += elapsed
    patience = self.seconds[_compiles(now)]
    if patience and self._waited >= patience * 2**self._told:
      self._told += 1
      self._stands(now, self._waited)

  def _run(self) -> None:
    tick = min(TICK, *(s / 10 for s in self.seconds.values() if s))
    last = time.monotonic()
    while not self._ended.wait(tick):
      begun, last = last, time.monotonic()
      # A program that was suspended, this thread with it, did not stall.
      self.look(min(last - begun, 2 * tick))

  def _stands(self, now: goodput.Now, waited: float) -> None:
    step, more = self.step(), ""
    files = being_read()
    if now.part in ("data", "eval"):
      reads = ", ".join(files) or "no file"
      more = f"; being read just now: {reads}"
    if self._told == 1:
      note = self._write_stacks(step, now, waited)
      self.incidents.note(
        step, "stall", part=now.part, seconds=round(waited, 1), files=files
      )
      more += f"; {note} shows where each thread stands" if note else ""
    self.incidents.tell(
      f"step {step}: no progress for {waited:.0f} s: {NAMES[now.part]}{more}. "
      f"{CURES[now.part]}"
    )

  def _goes_on(self, now: goodput.Now, waited: float) -> None:
    step, seconds = self.step(), round(waited, 1)
    self.incidents.note(step, "goes_on", part=now.part, seconds=seconds)
    self.incidents.tell(
      f"step {step}: it goes on, after {waited:.0f} s of {NAMES[now.part]}"
    )

  def _write_stacks(self, step: int, now: goodput.Now, waited: float) -> str:
    """Name of the file, '' where it could not be written."""
    number = self.incidents.process
    own = f"_{number}" if number else ""
    path = self.incidents.path.with_name(f"stall_{step}{own}.txt")
    head = f"step {step}, {waited:.0f} s of {NAMES[now.part]}\n\n"
    with contextlib.suppress(Exception):  # as in `Incidents.note`
      paths.write_text(path, head + stacks())
      return path.name
    return ""


def stacks() -> str:
  """Where each thread of this program stands, the main one first."""
  names = {t.ident: t.name for t in threading.enumerate()}
  main = threading.main_thread().ident
  frames = sorted(sys._current_frames().items(), key=lambda f: f[0] != main)
  return "\n".join(
    f"thread {names.get(ident, 'of a library')}:\n"
    + "".join(traceback.format_stack(frame))
    for ident, frame in frames
  )


def being_read() -> list[str]:
  """Files that functions of `magvit_jax.data` are at, in any thread."""
  found = set()
  for frame in sys._current_frames().values():
    while frame is not None:
      inside = frame.f_globals.get("__name__", "").startswith("magvit_jax.data")
      if inside and "path" in frame.f_locals:
        found.add(str(frame.f_locals["path"]))
      frame = frame.f_back
  return sorted(found)


def _compiles(now: goodput.Now) -> bool:
  # The first evaluation compiles its own program.
  return now.part == "compile" or (now.part == "eval" and now.first)
