"""What a run leaves to read: metrics.jsonl, TensorBoard events, a progress bar.

metrics.jsonl has one JSON object per line: `step`, `kind` ('train', 'eval' or
'time') and numbers; a number that is not finite is written as null. Only
process 0 writes and speaks.

Of a gs:// workdir both are spooled here and uploaded whole: with each row of
'eval' and 'time', at `flush`, which the loop calls before a checkpoint, and
else once a minute. So rows up to a checkpoint are never lost, and those after
it are what a run that goes on from there would write again.
"""

import contextlib
import json
import math
import pathlib
import sys
import time
from typing import Any

import jax
import tqdm
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2

from magvit_jax.files import paths, remote_buffer

PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal
EVENT_SECONDS = 10.0  # between flushes of TensorBoard events
UPLOAD_SECONDS = 60.0  # between uploads, where the workdir is remote


class Writer:
  """Writes the numbers of one run and shows how far it is.

  Args:
    workdir: folder of the run.
    steps: length of the run.
    start: step that was restored; rows after it are dropped, so that curves
      have each step once.
  """

  def __init__(self, workdir: paths.Name, *, steps: int, start: int):
    self.active = jax.process_index() == 0
    path = paths.as_path(workdir) / "metrics.jsonl"
    self.kept = read(path, start)
    if not self.active:
      return
    self.spool = remote_buffer.Spool(workdir)
    local = self.spool.local / path.name
    truncate(path, start, local)
    self.file = local.open("a", encoding="utf-8")
    self.events = _Events(self.spool.local / "tb", start)
    self.steps, self.start = steps, start
    self.started = time.monotonic()
    self.terminal = sys.stderr.isatty()
    self.spoken = -math.inf
    self.bar = tqdm.tqdm(
      total=steps,
      initial=start,
      unit="step",
      dynamic_ncols=True,
      disable=not self.terminal,
    )

  def had(self, step: int, kind: str) -> bool:
    """Whether a row of that kind was written before this session."""
    return any(row["step"] == step for row in self.rows(kind))

  def rows(self, kind: str) -> list[dict[str, Any]]:
    """Rows of a kind that were written before this session."""
    return [row for row in self.kept if row["kind"] == kind]

  def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
    """Adds a row, on disk at once, and its TensorBoard scalars.

    Raises:
      OSError: the disk is full or gone.
      spool.UploadError: so is the remote workdir.
    """
    if not self.active:
      return
    try:
      self._write(step, kind, values)
      self.spool.upload(UPLOAD_SECONDS if kind == "train" else 0.0)
    except OSError as error:
      raise OSError(
        f"{self.file.name} cannot be written ({error}). Checkpoints are "
        "untouched: free some space and run the same command again"
      ) from error

  def flush(self) -> None:
    """Returns when all rows are where they belong; raises as `write`."""
    if self.active:
      self.spool.upload()

  def progress(self, step: int, loss: float, rate: float) -> None:
    """Shows the step, the loss, examples per second and the time left."""
    if not self.active:
      return
    text = f"loss {loss:.4g}, {rate:.3g} examples/s"
    if self.terminal:
      self.bar.set_postfix_str(text, refresh=False)
      self.bar.update(step - self.bar.n)
    elif time.monotonic() - self.spoken > PLAIN_SECONDS or step == self.steps:
      self.spoken = time.monotonic()
      print(f"step {step}/{self.steps}: {text}{self._left(step)}", flush=True)

  def say(self, text: str) -> None:
    """Prints a message without tearing the progress bar."""
    if self.active:
      with self.bar.external_write_mode(file=sys.stdout):
        print(text, flush=True)

  def close(self) -> None:
    """Closes the files and the bar; a second time does nothing."""
    if self.active:
      self.active = False
      self.bar.close()
      # Rows are on disk already, and a full disk has had its error in `write`.
      with contextlib.suppress(OSError):
        self.events.close()
      with contextlib.suppress(OSError):
        self.file.close()
      # As of a full disk, the error has come up where a row was written.
      with contextlib.suppress(remote_buffer.UploadError):
        self.spool.close()

  def _write(self, step: int, kind: str, values: dict[str, Any]) -> None:
    row = {name: _plain(value) for name, value in values.items()}
    line = json.dumps({"step": step, "kind": kind, **row}, allow_nan=False)
    self.file.write(line + "\n")
    self.file.flush()
    self.events.write(step, kind, row)

  def _left(self, step: int) -> str:
    done = step - self.start
    if done <= 0 or step == self.steps:
      return ""
    seconds = (time.monotonic() - self.started) / done * (self.steps - step)
    return f", {tqdm.tqdm.format_interval(seconds)} left"


class _Events:
  """TensorBoard scalars, written by the caller's own thread.

  tensorboardX's SummaryWriter has a process queue and a thread that, on a full
  disk, bury the one clear error under their own tracebacks.
  """

  def __init__(self, folder: pathlib.Path, start: int):
    folder.mkdir(exist_ok=True)
    # The name has seconds only: the start keeps a quick restart apart.
    self.file = event_file_writer.EventsWriter(
      str(folder / "events"), f".{start}"
    )
    self.flushed = time.monotonic()
    # Tells TensorBoard to forget what an earlier session wrote after `start`.
    event = event_pb2.Event(wall_time=time.time(), step=start + 1)
    event.session_log.status = event_pb2.SessionLog.START
    self.file.write_event(event)

  def write(self, step: int, kind: str, row: dict[str, Any]) -> None:
    event = event_pb2.Event(wall_time=time.time(), step=step)
    for name, value in row.items():
      if isinstance(value, (int, float)):
        event.summary.value.add(tag=f"{kind}/{name}", simple_value=value)
    self.file.write_event(event)
    if kind != "train" or time.monotonic() - self.flushed > EVENT_SECONDS:
      self.file.flush()
      self.flushed = time.monotonic()

  def close(self) -> None:
    self.file.close()


def read(path: paths.Path, step: int) -> list[dict[str, Any]]:
  """Rows up to `step`, without a last line that a crash cut short."""
  if not path.exists():
    return []
  rows = []
  for line in paths.read_text(path).splitlines():
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return [row for row in rows if row["step"] <= step]


def truncate(path: paths.Path, step: int, to: pathlib.Path) -> None:
  """Writes rows up to `step` into the file `to`, which may be the same."""
  if path.exists():
    lines = [json.dumps(row) + "\n" for row in read(path, step)]
    paths.write_text(to, "".join(lines))


def _plain(value: Any) -> Any:
  if isinstance(value, (str, int)):
    return value
  value = float(value)
  return value if math.isfinite(value) else None
