"""Traces of a few training steps: --profile_steps=a:b.

The trace (an .xplane.pb for XProf, TensorBoard's profile tab or Perfetto) lies
in WORKDIR/profile; its scopes are those of the code ('losses', 'optimizer',
names of modules), its steps are marked.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from magvit_jax.files import paths, remote_buffer

FOLDER = "profile"


class Steps(NamedTuple):
  """Steps first .. last - 1, counted from 0 over the whole run."""

  first: int
  last: int


def parse(text: str) -> Steps:
  """The steps of 'a:b'.

  Raises:
    ValueError: another form, or no step between the two.
  """
  match = re.fullmatch(r"(\d+):(\d+)", text)
  steps = Steps(*map(int, match.groups())) if match else Steps(0, 0)
  if steps.first >= steps.last:
    raise ValueError(
      f"--profile_steps={text}: it is FIRST:LAST, such as 10:13 for the steps "
      "10, 11 and 12, with FIRST below LAST"
    )
  return steps


def check(steps: Steps | None, end: int) -> None:
  """ValueError where a run of `end` steps ends before the last of `steps`."""
  if steps is not None and steps.last > end:
    raise ValueError(
      f"--profile_steps={steps.first}:{steps.last}: the run has {end} steps; "
      f"the second number is at most {end}"
    )


class Trace:
  """Traces some steps of a run as they come.

  Args:
    steps: those asked for, or None.
    folder: where traces are written.
    say: shows a line.
  """

  def __init__(
    self,
    steps: Steps | None,
    folder: paths.Path,
    say: Callable[[str], None],
  ):
    # Others do the same, and on one machine their files would have one name.
    own = steps is not None and jax.process_index() == 0
    self.steps = steps if own else Steps(0, 0)
    self.folder, self.say = folder, say
    self.on = False

  def begin(self, step: int) -> None:
    """Says so where a run goes on behind the steps asked for."""
    first, last = self.steps
    if first < last <= step:
      self.say(f"no trace: the steps {first}:{last} lie before step {step}")

  @contextlib.contextmanager
  def step(self, step: int, state: Callable[[], Any]) -> Iterator[None]:
    """Around a step; it is traced if it is one of those asked for.

    Args:
      step: its number.
      state: gives what the last step computes. A trace begins and ends when
        the device is done with it.
    """
    first, last = self.steps
    if not self.on and first <= step < last:
      jax.block_until_ready(state())
      self._open()
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
      yield
    if self.on and step + 1 == last:
      jax.block_until_ready(state())
      self.close()

  def _open(self) -> None:
    # Calls of Python are many, and noting them would slow the steps down.
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    self.spool = remote_buffer.Spool(self.folder)
    local = str(self.spool.local)
    jax.profiler.start_trace(local, profiler_options=options)
    self.on = True

  def close(self) -> None:
    """Writes the trace that is on, if one is."""
    if self.on:
      self.on = False
      jax.profiler.stop_trace()
      self.spool.close()
      self.say(
        f"a trace of the steps {self.steps.first}:{self.steps.last} is "
        f"in {self.folder}"
      )
