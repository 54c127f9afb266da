"""What goes wrong during a run: told in the log and kept in the workdir.

incidents.jsonl has one JSON object per line: `time`, `step`, `kind` and what
belongs to the kind (names of files, numbers). Lines are only ever added, also
when a run goes on from an earlier step. With several processes each one tells
of its own clips and its own waiting, and has a file of its own
(incidents_3.jsonl).
"""

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from magvit_jax import messages
from magvit_jax.files import paths
from magvit_jax.monitoring import liveness, loss_spikes

MAX_BAD = 3  # non-finite steps in a row that stop a run
NAMED = 64  # files that a row names at most


class NonFiniteError(FloatingPointError):
  """Too many steps in a row had a term or gradient that is not finite."""


class Incidents:
  """Counts them, and tells each once.

  Args:
    workdir: folder of the run.
    say: shows a text; only process 0 has a use for it.
    files: those that the numbers 'file' of a batch stand for.
    deviations: see `spikes.Spikes`.

  Attributes:
    skipped: unreadable clips so far.
  """

  def __init__(
    self,
    workdir: paths.Name,
    say: Callable[[str], None],
    files: tuple[str, ...],
    deviations: float = 0.0,
  ):
    self.process = jax.process_index()
    own = f"_{self.process}" if self.process else ""
    self.path = paths.as_path(workdir) / f"incidents{own}.jsonl"
    self._say, self.files = say, files
    self.skipped = 0
    self._told: set[str] = set()
    self._names: dict[str, None] = {}
    self._spikes = loss_spikes.Spikes(deviations)

  def session(
    self, step: Callable[[], int], train: Callable[[], dict[str, Any]]
  ) -> dict[str, Any]:
    """Calls `train`, and notes that it began and how it ended.

    Args:
      step: gives the step that was reached.
      train: returns 'step' and 'stopped', as `loop.run` does.
    """
    count, files = jax.process_count(), len(self.files)
    self.note(
      step(), "start", mark=liveness.mark(), processes=count, files=files
    )
    try:
      result = train()
    except BaseException as error:
      text = " ".join(f"{type(error).__name__}: {error}".split())
      self.note(step(), "failed", error=text[:1000])
      raise
    self.note(result["step"], "ended", signal=result["stopped"])
    return result

  def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Takes from earlier rows of training what losses are usual."""
    for row in list(rows)[-loss_spikes.WINDOW :]:
      self._spikes.add(row.get(loss_spikes.main_term(row)) or 0.0)

  def unreadable(self, step: int, batch: Mapping[str, Any]) -> None:
    """Notes the clips that were replaced in the batch of a step."""
    count = int(np.sum(batch.get("skipped", 0)))
    if not count:
      return
    self.skipped += count
    names = sorted(set(batch.get("bad", ())) - self._told)
    self._told |= set(names)
    if names:
      self.note(step, "unreadable", names=names, skipped=self.skipped)
      self.tell(
        f"step {step}: unreadable, replaced by the next clip: "
        f"{', '.join(names)} ({self.skipped} so far)"
      )

  def finite(
    self, step: int, metrics: Mapping[str, Any], clips: np.ndarray
  ) -> None:
    """Notes a step that was applied, and tells whether its loss is a spike.

    Args:
      step: which.
      metrics: its scalars; one of them is read.
      clips: 'file' of this process's rows of its batch.
    """
    self._names.clear()
    term = loss_spikes.main_term(metrics)
    if not self._spikes.deviations or term not in metrics:
      return
    spike = self._spikes.add(float(metrics[term]))
    if not spike:
      return
    names = self._files(clips)
    times = spike.value / spike.usual
    row = {"term": term, "value": spike.value, "usual": spike.usual}
    self.note(step, "spike", **row, files=names[:NAMED])
    if not self.process:
      self._say(
        f"step {step}: {term} is {spike.value:.4g}, {times:.3g} times its "
        f"usual {spike.usual:.4g} ({spike.deviations:.0f} deviations); its "
        f"clips are of {messages.some(names)}. If it comes down again, nothing "
        "is to be done; where such spikes are many, look at these clips, set "
        "--config.stage.optim.clip, or lower --config.stage.optim.lr"
      )

  def non_finite(
    self,
    step: int,
    row: int,
    values: Mapping[str, float],
    clips: np.ndarray,
    saved: int | None,
  ) -> None:
    """Notes a step that was not applied.

    Args:
      step: which.
      row: such steps in a row, this one included.
      values: its metrics.
      clips: 'file' of this process's rows of its batch.
      saved: step of the last checkpoint, if there is one.

    Raises:
      NonFiniteError: that was one too many.
    """
    names = [k for k, v in values.items() if not np.isfinite(v)]
    self._names |= dict.fromkeys(names)
    named = ", ".join(self._names) or "a gradient"
    held = self._files(clips)
    files = messages.some(held)
    self.note(step, "non_finite", terms=names, row=row, files=held[:NAMED])
    self.tell(
      f"step {step} was not applied: not finite: {named}; its clips are of "
      f"{files}. The weights are as before; {MAX_BAD} such steps in a row stop "
      "the run"
    )
    if row >= MAX_BAD:
      raise NonFiniteError(
        f"step {step}: {row} steps in a row were not finite ({named}); none "
        f"of them was applied. The last checkpoint is "
        f"{'none' if saved is None else f'step {saved}'}. Lower "
        "stage.optim.lr, set stage.optim.clip, or look at the data of these "
        f"steps (the last was of {files})"
      )

  def tell(self, text: str) -> None:
    """Shows what this process alone knows."""
    if self.process:
      print(f"process {self.process}: {text}", file=sys.stderr, flush=True)
    else:
      self._say(text)

  def note(self, step: int, kind: str, **facts: Any) -> None:
    """Adds a line, if it can: telling never ends a run."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    row = {"time": now, "step": step, "kind": kind, **facts}
    # An object store raises whatever its client does.
    with contextlib.suppress(Exception):
      _append(self.path, json.dumps(row) + "\n")

  def _files(self, clips: np.ndarray) -> list[str]:
    return [self.files[i] for i in np.unique(clips)]


def read(workdir: paths.Name) -> list[dict[str, Any]]:
  """The rows of all processes in the order of time.

  Each has 'process' too. A line that was cut short is left out.
  """
  rows = []
  for path in sorted(paths.as_path(workdir).glob("incidents*.jsonl")):
    number = path.stem.partition("_")[2]
    for line in paths.read_text(path).splitlines():
      with contextlib.suppress(json.JSONDecodeError, TypeError):
        rows.append({**json.loads(line), "process": int(number or 0)})
  return sorted(rows, key=lambda row: row["time"])


def _append(path: paths.Path, line: str) -> None:
  # Two threads may come here: a line is one write.
  if paths.is_remote(path):
    before = paths.read_text(path) if path.exists() else ""
    paths.write_text(path, before + line)
    return
  file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
  try:
    os.write(file, line.encode())
  finally:
    os.close(file)
