"""The doctor on how a run went: its ends, its stalls, its clips, its spikes."""

import json
import os
import time

import pytest

from helpers import fake_gcs, synthetic_run
from helpers.errors import check_names, names
from helpers.synthetic_run import found, note, worse
from magvit_jax import doctor
from magvit_jax.cli import doctor as verb
from magvit_jax.doctor import saved
from magvit_jax.monitoring import incidents, liveness

START = (0, 0, "start", {})


def half(folder, *rows, **made):
  """A run at half of its steps, with incidents."""
  synthetic_run.write(folder, upto=2000, done=False, **made)
  return note(folder, *rows)


def gone():
  """The mark of a process of this machine that has ended."""
  here, _, start = liveness.mark().rsplit("/", 2)
  return f"{here}/4194305/{start}"


def stall(part, step=1000, process=0, **facts):
  return (process, step, "stall", dict(part=part, seconds=300.0) | facts)


def goes_on(part, seconds, step=1000, process=0):
  return (process, step, "goes_on", dict(part=part, seconds=seconds))


ENDS = {
  "stopped": (
    "note",
    [2000, "SIGTERM"],
    [START, (0, 2000, "ended", {"signal": 15})],
  ),
  "failed": (
    "wrong",
    [1990, "OSError: no space"],
    [START, (0, 1990, "failed", {"error": "OSError: no space"})],
  ),
  "killed": (
    "warn",
    [],
    [(0, 0, "start", {"mark": gone()})],
  ),
  "failed and started again": (
    "note",
    [2000],
    [
      START,
      (0, 1990, "failed", {"error": "OSError: no space"}),
      (0, 1900, "start", {"mark": liveness.mark()}),
    ],
  ),
  "on another machine": ("note", [2000], [START]),
}


@pytest.mark.parametrize("end", ENDS)
def test_how_a_run_ended_is_told(tmp_path, end):
  severity, named, rows = ENDS[end]
  (finding,) = found(half(tmp_path, *rows), "progress")
  assert finding.severity == severity
  check_names(finding.what, *named)


def test_a_process_that_lives_and_writes_nothing_hangs(tmp_path):
  folder = half(tmp_path, (0, 0, "start", {"mark": liveness.mark()}))
  ago = time.time() - 7200
  os.utime(folder / "metrics.jsonl", (ago, ago))
  (finding,) = found(folder, "progress")
  assert finding.severity == "warn"
  check_names(finding.what, "2.0 hours")


def test_restarts_are_counted_and_one_that_does_not_help_is_named(tmp_path):
  failed = (0, 900, "failed", {"error": "ValueError: bad clip"})
  killed = (0, 800, "start", {"mark": gone()})
  folder = half(tmp_path, START, failed, killed, START)
  (finding,) = found(folder, "sessions")
  assert finding.severity == "note"
  check_names(finding.what, 3, 1, "ValueError: bad clip")
  folder = half(tmp_path / "stuck", START, *[killed, failed] * 3)
  (finding,) = found(folder, "sessions")
  assert finding.severity == "wrong"
  check_names(finding.what, 3, 800, "ValueError: bad clip")
  folder = half(tmp_path / "killed", *[killed] * 3)
  (finding,) = found(folder, "sessions")
  check_names(finding.what, 3, 800)
  assert "Error" not in finding.what


def test_restarts_that_were_meant_are_well(tmp_path):
  stops = [START, (0, 500, "ended", {"signal": 15})]
  folder = half(tmp_path, *stops * 4)
  assert worse(found(folder, "sessions")) == []
  # Three starts at one step, and the last one goes on.
  rows = [(0, 800, "start", {"mark": gone()})] * 2
  folder = half(
    tmp_path / "on", *rows, (0, 800, "start", {"mark": liveness.mark()})
  )
  assert [f.severity for f in found(folder, "sessions")] == ["note"]
  assert found(half(tmp_path / "old"), "sessions") == []


def test_stalls_are_told_by_what_was_waited_for(tmp_path):
  rows = [START, stall("data", files=["slow.mp4"]), goes_on("data", 600.0)]
  (finding,) = found(half(tmp_path, *rows), "stalls")
  assert finding.severity == "warn"
  check_names(finding.what, 1, "10 min", "12.0%", "slow.mp4")
  check_names(finding.cure, "loader.threads")
  rows[2] = goes_on("data", 30.0)
  (finding,) = found(half(tmp_path / "short", *rows), "stalls")
  assert finding.severity == "note"
  assert worse(found(half(tmp_path / "none", START), "stalls")) == []
  assert found(half(tmp_path / "old"), "stalls") == []


def test_a_stall_that_lasts_is_wrong_and_names_who_waits_for_what(tmp_path):
  rows = [
    (0, 0, "start", {"mark": liveness.mark(), "processes": 2}),
    stall("step", files=[]),
    stall("data", process=1, files=["b.mp4"]),
  ]
  (finding,) = found(half(tmp_path, *rows), "stalls")
  assert finding.severity == "wrong"
  named = 1000, "2026-01-01T00:02:00+00:00", "process 1", "b.mp4"
  check_names(finding.what, *named)
  # Over with its session, or with the run.
  rows.append((0, 1000, "failed", {"error": "x"}))
  assert worse(found(half(tmp_path / "over", *rows), "stalls")) == []


def test_clips_and_steps_are_told_with_their_files(tmp_path):
  def bad(step):
    return {"skipped": 4} | ({"bad": 1, "loss": None} if step == 1800 else {})

  def rows(step):
    return {k: float("nan") if v is None else v for k, v in bad(step).items()}

  incidents = [
    START,
    (0, 40, "unreadable", {"names": ["a.mp4: cut short"]}),
    (1, 80, "unreadable", {"names": ["b.mp4: no video"]}),
    (0, 1800, "non_finite", {"files": ["c.mp4"]}),
    (0, 1801, "non_finite", {"files": ["d.mp4"]}),
  ]
  folder = half(tmp_path, *incidents, rows=rows)
  (clips,) = found(folder, "clips")
  check_names(clips.what, 2, "a.mp4: cut short", "b.mp4: no video")
  (step,) = found(folder, "non_finite")
  check_names(step.what, 1800, "c.mp4")
  assert "d.mp4" not in step.what


def spike(step, *files, process=0):
  return (process, step, "spike", {"files": files})


def test_spikes_of_steps_that_left_no_row_name_the_file_they_share(tmp_path):
  spikes = [
    spike(333, "a", "x"),
    spike(333, "b", process=1),
    spike(501, "c", "x"),
    spike(777, "x", "d"),
  ]
  few = dict(cfg={"batch": 16})
  (finding,) = found(half(tmp_path, START, *spikes, **few), "loss")
  assert finding.severity == "warn"
  check_names(finding.what, 3, 333, 501, "x")
  # A file that most batches hold anyway says nothing.
  few = dict(cfg={"batch": 900})
  (finding,) = found(
    half(tmp_path / "by chance", START, *spikes, **few), "loss"
  )
  check_names(finding.what, 3, 333)
  assert not names(finding.what, "x")
  once = half(tmp_path / "once", START, *spikes[:2])
  assert [f.severity for f in found(once, "loss")] == ["note"]
  assert worse(found(half(tmp_path / "none", START), "loss")) == []


def test_a_checkpoint_removed_while_it_is_read_is_not_damaged(
  tmp_path, monkeypatch
):
  listed = iter([[1000, 2000], [2000]])
  monkeypatch.setattr(saved.checkpointer, "steps", lambda folder: next(listed))
  assert list(saved.faults(tmp_path)) == [2000]


def test_a_healthy_run_with_incidents_has_no_finding(tmp_path, capsys):
  folder = synthetic_run.write(tmp_path)
  note(folder, START, (0, 4000, "ended", {"signal": 0}))
  findings = doctor.diagnose(folder)[1]
  # It has no checkpoint, which is not looked at here.
  assert {f.name for f in worse(findings)} == {"checkpoints"}
  assert {"sessions", "stalls", "progress"} <= {f.name for f in findings}
  verb.main([f"--workdir={folder}", "--json"])
  assert json.loads(capsys.readouterr().out)["done"]


def test_a_run_in_a_bucket_is_read_like_one_on_disk(tmp_path, monkeypatch):
  fake_gcs.use(monkeypatch, tmp_path)
  folder = synthetic_run.write("gs://bucket/run", upto=2000, done=False)
  log = incidents.Incidents(folder, print, ("a.mp4",))
  log.note(7, "stall", part="data", seconds=300.0, files=["gs://b/a.mp4"])
  log.note(7, "goes_on", part="data", seconds=301.0)
  run, findings = doctor.diagnose(folder)
  assert run.step == 2000 and len(run.incidents) == 2
  (finding,) = [f for f in findings if f.name == "stalls"]
  check_names(finding.what, "gs://b/a.mp4")
