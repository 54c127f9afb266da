"""config.json, differences between configs, and the modes of --resume."""

import json
import pathlib

import ml_collections

from helpers.errors import error_names
from magvit_jax.files import workdirs


def config(**changes):
  cfg = dict(steps=5, size=(64, 64), stage=dict(name="x", optim=dict(lr=0.1)))
  return ml_collections.ConfigDict(cfg | changes)


def test_config_json_holds_what_a_reader_needs(tmp_path):
  workdirs.write_config(tmp_path, config())
  document = workdirs.read_config(tmp_path)
  assert document["config"]["size"] == [64, 64]
  assert document["config"]["stage"]["optim"] == {"lr": 0.1}
  assert document["versions"].keys() >= {"python", "jax", "orbax-checkpoint"}
  assert document["hardware"]["devices"] >= 1
  assert "git" in document


def test_diff_names_paths_and_both_values():
  new = config(steps=6, stage=dict(name="x", optim=dict(lr=0.2, b1=0.5)))
  assert workdirs.diff(config(), new) == [
    "stage.optim.b1: (absent) -> 0.5",
    "stage.optim.lr: 0.1 -> 0.2",
    "steps: 5 -> 6",
  ]


def test_diff_takes_lists_for_tuples_and_sees_empty_groups():
  stored = json.loads(json.dumps(workdirs.normal(config())))
  assert workdirs.diff(stored, config()) == []
  assert workdirs.diff({"a": {}}, {}) == ["a: {} -> (absent)"]
  assert workdirs.diff({"a": {}}, {"a": {"b": 1}}) == [
    "a: {} -> (absent)",
    "a.b: (absent) -> 1",
  ]


def test_auto_starts_then_goes_on_then_is_done(tmp_path):
  assert workdirs.prepare(tmp_path / "new" / "w", config(), "auto") == "new"
  folder = tmp_path / "new" / "w"
  assert workdirs.prepare(folder, config(), "auto") == "resume"
  workdirs.mark_done(folder, 5)
  assert workdirs.prepare(folder, config(), "auto") == "done"
  assert workdirs.prepare(folder, config(), "force") == "done"


def test_planning_writes_nothing(tmp_path):
  assert workdirs.plan(tmp_path / "w", config(), "auto") == "new"
  assert not (tmp_path / "w").exists()
  workdirs.prepare(tmp_path, config(), "auto")
  workdirs.mark_done(tmp_path, 5)
  before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
  assert workdirs.plan(tmp_path, config(steps=9), "force") == "resume"
  assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_auto_refuses_another_config_and_changes_nothing(tmp_path):
  workdirs.prepare(tmp_path, config(), "auto")
  before = (tmp_path / "config.json").read_bytes()
  with error_names(
    ValueError, tmp_path, "steps: 5 -> 6", "--workdir", "--resume=force"
  ):
    workdirs.prepare(tmp_path, config(steps=6), "auto")
  assert (tmp_path / "config.json").read_bytes() == before


def test_never_refuses_whatever_the_config(tmp_path):
  assert workdirs.prepare(tmp_path, config(), "never") == "new"
  with error_names(FileExistsError, tmp_path, "--workdir", "--resume=auto"):
    workdirs.prepare(tmp_path, config(), "never")


def test_force_keeps_the_earlier_config_and_reopens_a_done_run(tmp_path):
  workdirs.prepare(tmp_path, config(), "auto")
  workdirs.mark_done(tmp_path, 5)
  assert workdirs.prepare(tmp_path, config(steps=9), "force") == "resume"
  document = workdirs.read_config(tmp_path)
  assert document["config"]["steps"] == 9
  assert [old["steps"] for old in document["earlier"]] == [5]


def test_checkpoints_without_a_config_are_not_written_over(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  assert workdirs.plan(tmp_path, config(), "auto") == "new"
  (tmp_path / "checkpoints" / "3").mkdir()
  with error_names(FileExistsError, tmp_path, "config.json", "--workdir"):
    workdirs.prepare(tmp_path, config(), "auto")


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with error_names(OSError, tmp_path / "file", "--workdir"):
    workdirs.prepare(tmp_path / "file", config(), "auto")


def test_a_full_disk_is_found_before_training(tmp_path, monkeypatch):
  def full(self, data):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_bytes", full)
  with error_names(OSError, tmp_path, "No space left on device"):
    workdirs.prepare(tmp_path, config(), "auto")
  assert not (tmp_path / "config.json").exists()


def test_unknown_mode_and_no_run(tmp_path):
  with error_names(ValueError, "--resume", "forse", "force"):
    workdirs.prepare(tmp_path, config(), "forse")
  with error_names(FileNotFoundError, tmp_path / "config.json", "--workdir"):
    workdirs.read_config(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with error_names(ValueError, tmp_path / "config.json"):
    workdirs.read_config(tmp_path)
