"""The loop on a toy stage: resume, signals, non-finite steps, init_from."""

import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import check_names, error_names
from helpers.toy_training import (
  ToySource,
  config,
  final,
  kinds,
  parts,
  rows,
  toy_stage,
  train,
)
from magvit_jax.checkpoints import checkpointer, init_from
from magvit_jax.files import workdirs
from magvit_jax.hardware import mfu
from magvit_jax.monitoring import incidents, profiler
from magvit_jax.training import loop


def interrupt_at(monkeypatch, step, number=signal.SIGTERM):
  """Sends a real signal from inside step `step`."""
  original = loop._Loop._one_step

  def one_step(self):
    original(self)
    if self.step == step:
      os.kill(os.getpid(), number)

  monkeypatch.setattr(loop._Loop, "_one_step", one_step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run of 6 steps that nothing disturbed, and its results."""
  folder = tmp_path_factory.mktemp("whole")
  return folder, train(folder)


def test_whole_run_leaves_what_readers_expect(whole):
  folder, result = whole
  assert result["step"] == 6 and result["stopped"] == 0
  assert np.isfinite(result["eval_psnr"])
  assert (folder / "DONE").exists()
  assert [r["step"] for r in rows(folder, "train")] == [1, 2, 3, 4, 5, 6]
  assert [r["step"] for r in rows(folder, "eval")] == [3, 6]
  assert rows(folder, "eval")[-1]["eval_psnr"] == result["eval_psnr"]
  assert len({r["draw"] for r in rows(folder, "train")}) == 6
  needed = {"loss", "examples_per_second", "data_share", "seconds_step"}
  assert needed <= rows(folder, "train")[0].keys()
  assert "seconds_compile" in rows(folder, "time")[0]
  assert 0 < rows(folder, "time")[-1]["goodput"] < 1
  # A processor's peak is not known: no figure rather than a wrong one.
  assert "mfu" not in rows(folder, "train")[0]
  assert checkpointer.steps(folder) == [4, 6]
  assert list((folder / "tb").iterdir())
  assert rows(folder, "train")[-1]["loss"] < rows(folder, "train")[0]["loss"]
  assert kinds(folder) == [("start", 0), ("ended", 6)]


def test_utilization_follows_the_step_time(tmp_path, monkeypatch):
  monkeypatch.setattr(mfu, "peak", lambda devices: 1e6)
  train(tmp_path)
  # Forward 3 x 3 products of every pixel, twice, and half of the backward.
  clip = np.prod(ToySource.shape)
  for row in rows(tmp_path, "train"):
    flops = row["mfu"] * row["seconds_step"] * 1e6
    assert flops == pytest.approx(4 * clip * 2 * 3 * 5)


def test_parts_that_do_not_fit_batch_and_devices_are_refused(
  tmp_path, monkeypatch
):
  cfg, folder = config(), tmp_path / "run"
  stage = parts(cfg).stage._replace(accumulate=3)
  wrong = parts(cfg)._replace(stage=stage)
  with error_names(ValueError, "stage.accumulate", 3, 4):
    loop.run(cfg, folder, parts=wrong)

  def four_devices(batch, mesh, name="batch"):
    if batch % 4:
      raise ValueError(f"{name} is {batch}")

  monkeypatch.setattr(loop.sharding, "local_rows", four_devices)
  wrong = wrong._replace(stage=stage._replace(accumulate=2))
  with error_names(ValueError, "stage.accumulate", 2):
    loop.run(cfg, folder, parts=wrong)
  assert not folder.exists()


def test_the_steps_asked_for_are_traced(tmp_path, capsys):
  cfg = config()
  with error_names(ValueError, "--profile_steps=0:7", 6):
    loop.run(cfg, tmp_path, parts=parts(cfg), profile=profiler.Steps(0, 7))
  assert not list(tmp_path.iterdir())
  loop.run(cfg, tmp_path, parts=parts(cfg), profile=profiler.Steps(5, 6))
  (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
  assert trace.stat().st_size > 1000
  check_names(capsys.readouterr().out, "5:6", tmp_path / "profile")


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_run_cut_in_two_is_bit_for_bit_the_whole_run(
  whole, tmp_path, monkeypatch, capsys, cut
):
  with monkeypatch.context() as patch:
    interrupt_at(patch, cut)
    result = train(tmp_path)
  assert result == {"step": cut, "stopped": signal.SIGTERM}
  assert not (tmp_path / "DONE").exists()
  out = capsys.readouterr().out
  check_names(out, "SIGTERM", cut, "--resume=auto")
  assert train(tmp_path)["step"] == 6
  for item in ("params", "opt", "ema", "extra"):
    here, there = final(tmp_path, item), final(whole[0], item)
    jax.tree.map(np.testing.assert_array_equal, here, there)
  assert [r["step"] for r in rows(tmp_path, "train")] == [1, 2, 3, 4, 5, 6]
  for name in ("loss", "draw"):
    values = [r[name] for r in rows(tmp_path, "train")]
    assert values == [r[name] for r in rows(whole[0], "train")]
  assert rows(tmp_path, "eval") == rows(whole[0], "eval")
  sessions = [("start", 0), ("ended", cut), ("start", cut), ("ended", 6)]
  assert kinds(tmp_path) == sessions
  signals = [row.get("signal") for row in incidents.read(tmp_path)]
  assert signals == [None, signal.SIGTERM, None, 0]


def test_a_run_killed_before_done_is_evaluated_and_done(whole, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(whole[0], folder)
  (folder / "DONE").unlink()
  # As a version left it that knew nothing of these keys.
  document = workdirs.read_config(folder)
  for key in ("watch", "inflate"):
    del document["config"][key]
  (folder / "config.json").write_text(json.dumps(document))
  assert train(folder)["eval_psnr"] == whole[1]["eval_psnr"]
  assert (folder / "DONE").exists()
  assert rows(folder, "eval") == rows(whole[0], "eval")


def test_another_seed_gives_another_run(whole, tmp_path):
  train(tmp_path, seed=2)
  kernel = final(tmp_path)["in"]["kernel"]
  assert (kernel != final(whole[0])["in"]["kernel"]).any()


def test_done_says_so_and_trains_nothing(whole, capsys):
  before = (whole[0] / "metrics.jsonl").read_bytes()
  assert train(whole[0])["step"] == 6
  check_names(capsys.readouterr().out, whole[0])
  assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_force_goes_on_with_the_new_config(tmp_path):
  train(tmp_path, steps=4)
  with error_names(ValueError, tmp_path, "steps: 4 -> 6", "--resume=force"):
    train(tmp_path, steps=6)
  assert train(tmp_path, "force", steps=6)["step"] == 6
  document = workdirs.read_config(tmp_path)
  assert document["config"]["steps"] == 6
  assert document["earlier"][0]["steps"] == 4
  with error_names(ValueError, tmp_path, 6, "steps=2"):
    train(tmp_path, "force", steps=2)
  wider = dict(nan_from=10**6, width=4)
  with error_names(
    checkpointer.MismatchError, tmp_path, 6, "in/kernel", "(3, 3)", "(3, 4)"
  ):
    train(tmp_path, "force", steps=7, stage=wider)
  assert workdirs.read_config(tmp_path) == document


def test_a_start_that_failed_does_not_stand_in_the_way(tmp_path):
  for wrong in (
    dict(checkpoint=dict(every=2, keep=0, best="none", best_mode="max")),
    dict(init_from="/nowhere"),
  ):
    with pytest.raises((ValueError, OSError)):
      train(tmp_path, **wrong)
    assert not (tmp_path / "config.json").exists()
  assert train(tmp_path, "never")["step"] == 6


def test_three_non_finite_steps_stop_and_name_the_terms(tmp_path):
  named = 8, 3, "loss, loss_l2", 6, "a.mp4, b.mp4"
  with error_names(incidents.NonFiniteError, *named) as error:
    train(tmp_path, steps=20, stage=dict(nan_from=5))
  assert "draw" not in str(error.value)
  assert not (tmp_path / "DONE").exists()
  bad = [r for r in rows(tmp_path, "train") if r["loss"] is None]
  assert [r["step"] for r in bad] == [6, 7, 8]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(final(tmp_path)))
  *skipped, failed = incidents.read(tmp_path)[1:]
  assert [(r["step"], r["row"]) for r in skipped] == [(6, 1), (7, 2), (8, 3)]
  assert skipped[0]["files"] == ["a.mp4", "b.mp4"]
  assert failed["kind"] == "failed"
  assert failed["error"].startswith("NonFiniteError: ")


def test_unreadable_clips_are_named_once_and_counted(tmp_path, capsys):
  train(tmp_path, broken=True)
  out = capsys.readouterr().out
  assert out.count("a.mp4") == 1
  (row,) = [r for r in incidents.read(tmp_path) if r["kind"] == "unreadable"]
  assert row["names"] == ["a.mp4 cannot be read"]
  counts = [r["skipped"] for r in rows(tmp_path, "train")]
  assert counts[-1] > counts[0] >= 0 and counts == sorted(counts)


def test_best_checkpoint_outlives_the_latest(tmp_path, monkeypatch):
  scores = iter([1.0, 9.0, 2.0, 3.0, 4.0, 5.0])
  monkeypatch.setattr(
    loop.evaluation, "evaluate", lambda *a, **k: {"psnr": next(scores)}
  )
  saving = dict(every=2, keep=1, best="eval_psnr", best_mode="max")
  cfg_eval = dict(every=1, batch=4, metrics=dict(psnr=dict()))
  train(tmp_path, checkpoint=saving, eval=cfg_eval)
  assert checkpointer.steps(tmp_path) == [2, 6]


def test_unknown_best_metric_lists_those_that_exist(tmp_path):
  saving = dict(every=2, keep=1, best="eval_pnsr", best_mode="max")
  with error_names(KeyError, "checkpoint.best", "eval_pnsr", "eval_psnr"):
    train(tmp_path, checkpoint=saving)


def test_init_from_takes_over_what_fits(whole, tmp_path, capsys):
  train(tmp_path, init_from=str(whole[0]), steps=6)
  out = capsys.readouterr().out
  check_names(out, "init_from", whole[0], 6, "2 of 2")
  cfg = config()
  state = jax.jit(toy_stage(6).init)(jax.random.key(0), {}, {})
  warm = init_from.load(init_from.match(str(whole[0]), state), state)
  jax.tree.map(np.testing.assert_array_equal, warm.ema, final(whole[0], "ema"))
  jax.tree.map(np.testing.assert_array_equal, warm.params, warm.ema)
  assert int(warm.step) == 0 and cfg.init_from == ""


def test_init_from_reports_shapes_and_names(whole):
  state = jax.jit(toy_stage(6, width=5).init)(jax.random.key(0), {}, {})
  with error_names(ValueError, f"init_from={whole[0]}", 2, "in/kernel"):
    init_from.match(str(whole[0]), state)
  extra = {**state.ema, "new": {"bias": jnp.zeros(2)}}
  del extra["out"]
  extra["in"] = {"kernel": jnp.zeros((3, 3)), "scale": jnp.zeros(3)}
  state = state._replace(
    params={"gen": jax.tree.map(jnp.copy, extra), "disc": {}}, ema=extra
  )
  found = init_from.match(f"{whole[0]}/checkpoints/6", state)
  warm, report = init_from.load(found, state), found.report
  check_names(report, "1 of 3", "in/scale, new/bias", "out/kernel")
  kernel = warm.params["gen"]["in"]["kernel"]
  np.testing.assert_array_equal(kernel, final(whole[0], "ema")["in"]["kernel"])


def test_init_from_a_folder_without_a_run_says_so(tmp_path):
  with error_names(OSError, f"init_from={tmp_path}"):
    init_from.match(str(tmp_path), None)


@pytest.mark.parametrize(
  "changes, named",
  [
    (dict(steps=0), ["steps", 0]),
    (dict(seed=-1), ["seed", -1]),
    (dict(mesh=dict(data=3)), ["data=3", "mesh.data=-1"]),
    (dict(mesh=dict(fsdp=-1)), ["data=-1", "fsdp=-1"]),
  ],
)
def test_wrong_values_stop_before_the_workdir_is_touched(
  tmp_path, changes, named
):
  with error_names(ValueError, *named):
    train(tmp_path / "w", **changes)
  assert not (tmp_path / "w").exists()
