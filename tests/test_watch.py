"""Long runs: what stands still, loses its way or fills the disk is told."""

import threading
import time

import numpy as np
import pytest

from helpers import toy_training
from helpers.errors import check_names, error_names
from magvit_jax import sharding
from magvit_jax.files import paths
from magvit_jax.losses import reconstruction
from magvit_jax.monitoring import (
  disk_space,
  goodput,
  incidents,
  liveness,
  loss_spikes,
  watchdog,
)
from magvit_jax.stages import TrainState

FILES = ("a.mp4", "b.mp4", "c.mp4")


@pytest.fixture
def told(tmp_path):
  """(what was said, incidents of a run at tmp_path)."""
  said = []
  return said, incidents.Incidents(tmp_path, said.append, FILES, 6.0)


def kinds(folder):
  return [row["kind"] for row in incidents.read(folder)]


def watching(log, **seconds):
  seconds = {"stall_seconds": 10.0, "compile_seconds": 100.0, **seconds}
  time_of = goodput.Clock()
  return time_of, watchdog.Watch(time_of, lambda: 7, log, seconds)


def test_a_stall_is_told_at_growing_intervals_and_so_is_its_end(told, tmp_path):
  said, log = told
  time_of, look = watching(log)
  with time_of("data"):
    look.look(1.0)  # it has just begun
    counts = []
    for _ in range(85):
      look.look(1.0)
      counts.append(len(said))
  assert [counts.index(k) + 1 for k in (1, 2, 3, 4)] == [10, 20, 40, 80]
  assert counts[-1] == 4
  check_names(said[0], "step 7", "10 s", "stall_7.txt")
  assert "stall_7.txt" not in said[1]
  look.look(1.0)
  check_names(said[4], "step 7", "85 s")
  assert kinds(tmp_path) == ["stall", "goes_on"]
  assert incidents.read(tmp_path)[1]["seconds"] == 85.0
  look.look(50.0)
  assert len(said) == 6
  assert kinds(tmp_path)[2:] == ["stall"]


def test_steps_and_batches_that_come_are_no_stall(told):
  said, log = told
  time_of, look = watching(log)
  for _ in range(50):
    for part in ("data", "step"):
      with time_of(part):
        look.look(4.0)
        look.look(4.0)
  with time_of("eval"):
    for _ in range(50):
      time_of.beat()
      look.look(9.0)
      look.look(9.0)
  assert said == []


def test_compiling_has_its_own_time(told):
  said, log = told
  time_of, look = watching(log)
  for part in ("compile", "eval"):  # the first evaluation compiles too
    with time_of(part):
      look.look(0.0)
      said.clear()
      look.look(99.0)
      assert said == []
      look.look(2.0)
      check_names(said.pop(), "step 7", "101 s")
  with time_of("eval"):
    look.look(0.0)
    said.clear()
    look.look(11.0)
  check_names(said[0], "step 7", "11 s")
  off, silent = watching(log, stall_seconds=0.0)
  with off("step"):
    silent.look(0.0)
    silent.look(1e6)
  assert len(said) == 1


def test_a_thread_sees_a_file_that_does_not_come(told, tmp_path, monkeypatch):
  said, log = told
  stop, here = threading.Event(), threading.Event()

  def slow(path):
    here.set()
    stop.wait()

  # As a function of magvit_jax.data that hangs at a file.
  monkeypatch.setitem(slow.__globals__, "__name__", "magvit_jax.data.fake")
  reader = threading.Thread(target=slow, args=("slow.mp4",), name="reader")
  reader.start()
  here.wait()
  time_of, look = watching(log, stall_seconds=0.05)
  try:
    with time_of("data"), look:
      end = time.monotonic() + 60
      while not said and time.monotonic() < end:
        time.sleep(0.01)
  finally:
    stop.set()
    reader.join()
  check_names(said[0], "slow.mp4")
  assert incidents.read(tmp_path)[0]["files"] == ["slow.mp4"]
  text = (tmp_path / "stall_7.txt").read_text()
  assert text.index("thread MainThread") < text.index("thread reader")
  assert "in slow\n" in text


def test_a_run_that_stands_still_says_so_and_goes_on(
  tmp_path, monkeypatch, capsys
):
  put, seen = sharding.put_batch, []

  def slow(batch, mesh):
    seen.append(batch)
    if len(seen) == 4:  # the first one is that of the start
      time.sleep(1.0)
    return put(batch, mesh)

  monkeypatch.setattr(sharding, "put_batch", slow)
  seconds = dict(stall_seconds=0.2, compile_seconds=0.0, spike=0.0)
  assert toy_training.train(tmp_path, watch=seconds)["step"] == 6
  out = capsys.readouterr().out
  check_names(out, "step 2", "stall_2.txt")
  assert "in slow\n" in (tmp_path / "stall_2.txt").read_text()
  assert {"start", "stall", "goes_on", "ended"} == set(kinds(tmp_path))
  with error_names(
    ValueError, "watch.stall_seconds", -1.0, "--config.watch.stall_seconds"
  ):
    toy_training.train(tmp_path / "w", watch=seconds | dict(stall_seconds=-1.0))


def test_wrong_seconds_are_refused():
  watchdog.check({"stall_seconds": 0.0, "spike": 1.0})
  with error_names(ValueError, "watch.spike", -1, "--config.watch.spike"):
    watchdog.check({"stall_seconds": 0.0, "spike": -1})


def test_the_watched_term_does_not_depend_on_an_order(monkeypatch):
  rows = ["loss", "grad_norm_gen", "loss_l1", "loss_l2", "d_adversarial"]
  for names in (rows, rows[::-1]):
    assert loss_spikes.main_term(names) == "loss_l2"
  assert loss_spikes.main_term({"loss", "loss_l1"}) == "loss_l1"
  assert loss_spikes.main_term({"loss", "loss_tokens"}) == "loss_tokens"
  assert loss_spikes.main_term({"loss", "loss_entropy"}) == "loss"
  new = {"loss_huber": reconstruction.l1, **reconstruction.LOSSES}
  for listed in (new, dict(reversed(new.items()))):
    monkeypatch.setattr(reconstruction, "LOSSES", listed)
    assert loss_spikes.main_term({"loss", "loss_huber"}) == "loss_huber"
    assert loss_spikes.main_term({"loss_huber", "loss_l2"}) == "loss_l2"


def feed(values, deviations=6.0):
  """Places of the spikes among values."""
  judge = loss_spikes.Spikes(deviations)
  return [k for k, v in enumerate(values) if judge.add(float(v))]


def test_a_spike_is_one_however_long_and_whatever_the_scale():
  rng = np.random.default_rng(0)
  for scale, noise, spike in ((8.0, 0.02, 1.6), (1e-4, 0.4, 30.0)):
    loss = scale * np.exp(noise * rng.normal(size=400))
    assert feed(loss) == []
    loss[200:205] *= spike
    loss[300] *= spike
    assert feed(loss) == [200, 300]
    assert feed(loss, 0.0) == []


def test_what_only_looks_like_a_spike_is_none():
  rng = np.random.default_rng(0)
  steps = np.arange(1000)
  looks = {
    "falls": 3 * np.exp(-steps / 200) + 0.1 + 0.002 * rng.random(1000),
    "hard batches": np.exp(0.8 * rng.normal(size=1000)),
    "turns": 0.1 + steps / 1000 + 0.01 * rng.random(1000),
    "even": np.full(1000, 0.5),
    "even, then harder by a quarter": 0.5 + 0.12 * (steps > 500),
    "not positive": -np.exp(rng.normal(size=1000)),
    "not a number": np.full(1000, np.nan),
  }
  assert {name: feed(loss) for name, loss in looks.items()} == {
    name: [] for name in looks
  }


def test_a_level_that_stays_is_told_once():
  assert feed([1.0] * 100 + [5.0] * 300) == [100]


def test_a_spike_names_its_clips_and_a_run_goes_on_knowing(told, tmp_path):
  said, log = told
  log.resume([{"loss": 9.0, "loss_l2": 1.0 + k % 3 / 100} for k in range(20)])
  log.finite(21, {"loss": 1.0, "loss_l2": 1.01}, np.array([0]))
  assert said == []
  log.finite(22, {"loss": 1.0, "loss_l2": 4.0}, np.array([2, 0, 2]))
  named = "step 22", "loss_l2", 4, 3.96, 1.01, "a.mp4, c.mp4"
  check_names(said[0], *named, "--config.stage.optim.clip")
  (row,) = incidents.read(tmp_path)
  assert row["files"] == ["a.mp4", "c.mp4"] and row["term"] == "loss_l2"


def test_the_start_and_the_end_of_a_session_are_kept(told, tmp_path):
  log, step = told[1], 3
  result = {"step": 9, "stopped": 15}
  assert log.session(lambda: step, lambda: result) is result

  def fails():
    raise OSError("no\nspace")

  with error_names(OSError, "no\nspace"):
    log.session(lambda: 9, fails)
  rows = incidents.read(tmp_path)
  assert [(r["kind"], r["step"]) for r in rows] == [
    ("start", 3),
    ("ended", 9),
    ("start", 9),
    ("failed", 9),
  ]
  assert rows[1]["signal"] == 15 and rows[3]["error"] == "OSError: no space"
  assert liveness.runs(rows[0]["mark"]) in (True, None)


def test_rows_of_all_processes_are_read_and_torn_ones_left_out(
  told, tmp_path, monkeypatch, capsys
):
  told[1].note(1, "stall", part="step")
  monkeypatch.setattr(incidents.jax, "process_index", lambda: 12)
  other = incidents.Incidents(tmp_path, told[0].append, FILES)
  other.unreadable(2, {"skipped": np.array([1, 1]), "bad": ["x: cut"]})
  # Each process has its own clips, and only the first one has `say`.
  assert told[0] == []
  check_names(capsys.readouterr().err, "process 12", "step 2", "x: cut")
  with (tmp_path / "incidents.jsonl").open("a") as file:
    file.write('{"time": "2026-01-01T00:00:00+00:00", "ste')
  rows = incidents.read(tmp_path)
  assert [(r["process"], r["kind"]) for r in rows] == [
    (0, "stall"),
    (12, "unreadable"),
  ]
  assert rows[1]["names"] == ["x: cut"]


def test_telling_never_ends_a_run(tmp_path):
  said = []
  log = incidents.Incidents(tmp_path / "gone", said.append, FILES)
  log.note(1, "stall")
  time_of, look = watching(log)
  with time_of("step"):
    look.look(0.0)
    look.look(11.0)
  check_names(said[0], "step 7", "11 s")
  assert not (tmp_path / "gone").exists()


def test_a_process_is_known_by_its_mark(tmp_path):
  mark = liveness.mark()
  if not mark:  # a system without /proc
    assert liveness.runs(mark) is None
    return
  here, pid, start = mark.rsplit("/", 2)
  assert liveness.runs(mark) is True
  assert liveness.runs(f"{here}/{pid}/{int(start) + 1}") is False  # used again
  assert liveness.runs(f"{here}/4194305/{start}") is False
  assert liveness.runs(f"another-{mark}") is None
  assert liveness.runs("") is None


def disk(free_mib, monkeypatch):
  monkeypatch.setattr(paths, "free_mib", lambda path: free_mib)


def test_a_disk_that_will_be_full_is_told_once(told, tmp_path, monkeypatch):
  said, log = told
  cfg = {"steps": 100, "checkpoint": {"every": 10, "keep": 3, "best": "none"}}
  state = TrainState(
    np.int32(0), np.zeros(2**20), {}, {}, np.zeros(2**28, bool), {}
  )
  look = disk_space.Space(tmp_path, cfg, state, log)
  for step in (10, 20, 30):
    disk(1000.0, monkeypatch)
    look.look(step)
    (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
  assert said == []
  disk(60.0, monkeypatch)
  look.look(40)
  look.look(50)
  (text,) = said
  # Three are there: the next one comes before the oldest goes.
  named = "60 MiB", "72 MiB", "1 x 8 MiB", "--config.checkpoint.keep=1"
  check_names(text, *named)
  disk(1000.0, monkeypatch)
  look.look(60)
  disk(60.0, monkeypatch)
  look.look(70)
  assert len(said) == 2 and kinds(tmp_path) == ["disk", "disk"]


def test_what_is_still_to_come_is_counted(tmp_path):
  def saves(step, every=10, keep=3, best="none"):
    saving = {"every": every, "keep": keep, "best": best}
    cfg = {"steps": 100, "checkpoint": saving}
    return disk_space.outlook(tmp_path, cfg, step, 2**20).saves

  assert saves(0) == 4 and saves(0, best="psnr") == 5
  assert saves(100) == 1 and saves(85) == 2 and saves(0, every=0) == 1
  (tmp_path / "metrics.jsonl").write_bytes(b"x" * 2**20)
  cfg = {"steps": 100, "checkpoint": {"every": 0, "keep": 1}}
  ahead = disk_space.outlook(tmp_path, cfg, 10, 0)
  assert ahead.need == pytest.approx(disk_space.SPARE_MIB + 9, abs=0.1)
