"""SIGKILL at any moment loses nothing: what kill_test.py counts."""

import collections
import pathlib
import re
import subprocess
import sys

import pytest

from helpers.errors import check_names

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
SCRIPT = FOLDER / "kill_test.py"


@pytest.fixture(scope="module")
def kill_test():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FOLDER))
    import kill_test

    yield kill_test


def test_twenty_kills_lose_nothing():
  # Its children are forked before JAX has devices; this process has some.
  run = subprocess.run(
    [sys.executable, str(SCRIPT), "--times=20", "--seed=1"],
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
  lines = re.findall(r"^ +(\d+) (.*)$", run.stdout, re.MULTILINE)
  counts = {name: int(number) for number, name in lines}
  assert counts["kills"] == 20
  assert counts["lost"] == counts["fallbacks"] == 0
  assert counts["kills in a save"] >= 5
  assert counts["starts"] == counts["kills"] + counts["runs"]


@pytest.fixture
def count(kill_test, tmp_path):
  """A count of nothing yet."""
  made = object.__new__(kill_test.Count)
  made.root, made.problems = tmp_path, []
  made.counts = made.from_steps = collections.Counter()
  made.again = []
  return made


def test_going_on_from_an_earlier_step_is_counted_as_lost(count):
  count.look("a", "resumed from step 8", safe=8)
  assert not count.problems
  count.look("a", "checkpoint 8 is damaged\nresumed from step 6", safe=8)
  assert count.problems == ["a: went on from 6, and 8 was complete"]
  assert count.counts["fallbacks"] == 1


def test_torn_and_missing_files_are_counted_as_lost(count, tmp_path):
  folder = tmp_path / "run"
  (folder / "checkpoints" / "2").mkdir(parents=True)
  row = '{"step": 1, "kind": "train", "loss": 1.0}\n'
  (folder / "metrics.jsonl").write_text(row + '{"step": 2, "ki')
  (folder / "config.json").write_text("{}")
  count.after("a", folder, "")
  assert not count.problems and count.counts["torn lines, passed over"] == 1
  (folder / "metrics.jsonl").write_text('{"st\n' + row + '{"step": 2, "ki')
  (folder / "config.json").unlink()
  (folder / "DONE").touch()
  count.after("a", folder, "")
  assert count.problems == [
    "a: 2 torn lines of metrics",
    "a: checkpoints without config.json",
    "a: DONE without the last checkpoint",
  ]


def test_other_losses_and_other_bits_are_counted_as_lost(count, tmp_path):
  for name, loss in (("whole", 1.0), ("run0", 1.0), ("run1", 1.5)):
    folder = tmp_path / name
    folder.mkdir()
    row = f'{{"step": 1, "kind": "train", "loss": {loss}, "seconds_step": 1}}\n'
    (folder / "metrics.jsonl").write_text(row)
    (folder / "DONE").write_text("step 24\n")
  count.finished("run0", tmp_path / "run0")
  assert not count.problems
  count.finished("run1", tmp_path / "run1")
  check_names(count.problems[0], "run1")
