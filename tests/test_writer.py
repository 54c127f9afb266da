"""Rows of metrics.jsonl, TensorBoard events and the progress bar."""

import io
import json

import numpy as np
import pytest

from helpers.errors import check_names, error_names
from magvit_jax.monitoring import metric_writer


def rows(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture
def open_writer(tmp_path):
  made = []

  def make(**args):
    made.append(
      metric_writer.Writer(tmp_path, **{"steps": 9, "start": 0, **args})
    )
    return made[-1]

  yield make
  for w in made:
    w.close()


def test_rows_are_on_disk_at_once_as_strict_json(tmp_path, open_writer):
  w = open_writer()
  w.write(1, "train", {"loss": np.float32(0.5), "nan": float("nan"), "n": 3})
  text = (tmp_path / "metrics.jsonl").read_text()
  row = json.loads(text, parse_constant=lambda name: pytest.fail(name))
  assert row == {"step": 1, "kind": "train", "loss": 0.5, "nan": None, "n": 3}


def test_resume_drops_later_rows_and_a_cut_line(tmp_path, open_writer):
  first = open_writer()
  for step in (1, 2, 3):
    first.write(step, "train", {"loss": float(step)})
  first.close()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 4, "ki')
  second = open_writer(start=2)
  second.write(3, "train", {"loss": 30.0})
  assert [(r["step"], r["loss"]) for r in rows(tmp_path)] == [
    (1, 1.0),
    (2, 2.0),
    (3, 30.0),
  ]


def test_tensorboard_events_are_written(tmp_path, open_writer):
  w = open_writer()
  w.write(1, "train", {"loss": 0.5, "bad": float("inf")})
  w.close()
  (events,) = (tmp_path / "tb").iterdir()
  data = events.read_bytes()
  assert b"train/loss" in data and b"train/bad" not in data


def test_a_quick_restart_keeps_the_events_of_the_session_before(
  tmp_path, open_writer
):
  first = open_writer()
  first.write(1, "train", {"early": 1.0})
  first.close()
  open_writer(start=1).close()
  data = b"".join(p.read_bytes() for p in (tmp_path / "tb").iterdir())
  assert b"train/early" in data and len(list((tmp_path / "tb").iterdir())) == 2


def test_a_full_disk_names_the_file_and_the_cure(open_writer, monkeypatch):
  w = open_writer()

  def full():
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(w.events.file, "flush", full)
  with error_names(OSError, "metrics.jsonl", "No space left on device"):
    w.write(1, "eval", {"psnr": 1.0})
  monkeypatch.undo()


def test_without_a_terminal_lines_come_now_and_then(open_writer, capsys):
  w = open_writer()
  for step in range(1, 10):
    w.progress(step, 0.25, 12.0)
  out = capsys.readouterr().out.splitlines()
  check_names(out[0], "1/9", 0.25, 12)
  check_names(out[1], "9/9", 0.25, 12)
  assert len(out) == 2


def test_on_a_terminal_there_is_a_bar(open_writer, monkeypatch, capsys):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  terminal = Terminal()
  monkeypatch.setattr("sys.stderr", terminal)
  w = open_writer(start=4)
  w.progress(9, 0.25, 12.0)
  w.say("a message")
  w.close()
  check_names(terminal.getvalue(), "9/9", 0.25, 12)
  assert capsys.readouterr().out.strip().endswith("a message")


def test_other_processes_write_nothing(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(metric_writer.jax, "process_index", lambda: 1)
  w = metric_writer.Writer(tmp_path, steps=3, start=0)
  w.write(1, "train", {"loss": 1.0})
  w.progress(1, 1.0, 1.0)
  w.say("hello")
  w.close()
  assert not list(tmp_path.iterdir())
  assert capsys.readouterr().out == ""
