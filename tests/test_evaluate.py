"""Evaluation: each clip counts once, in any batch size; bad input is named."""

import json

import jax
import numpy as np
import pytest

from helpers import toy_workdir
from helpers.errors import check_names, error_names
from magvit_jax import registry
from magvit_jax.checkpoints import trained_run
from magvit_jax.cli import evaluate as verb
from magvit_jax.training import evaluation


def source(clips=5):
  args = {"frames": 9, "size": (16, 16), "eval_clips": clips}
  return registry.build("data", {"name": "moving_digits", **args}, split="eval")


def measure(batch, metrics=None, clips=5):
  predict, state = toy_workdir.run_predict()
  return evaluation.evaluate(
    predict,
    state,
    source(clips),
    toy_workdir.METRICS if metrics is None else metrics,
    batch=batch,
    context={"sizes": (toy_workdir.SIZE,)},
    progress=False,
  )


def test_all_metrics_are_there():
  assert set(measure(2)) == {
    "psnr",
    "psnr_box",
    "ssim",
    "usage",
    "perplexity",
    "bits_per_pixel",
    "bits_used_per_pixel",
  }


def test_padding_does_not_count():
  """Five clips in batches of 2, 4 and 5 give the same numbers."""
  whole = measure(5)
  for batch in (2, 4):
    for name, value in measure(batch).items():
      assert value == pytest.approx(whole[name], rel=1e-5), name


def test_deterministic():
  assert measure(2) == measure(2)


def test_reconstruction_beats_its_floor():
  out = measure(2)
  gain = out["psnr"] - out["psnr_box"]
  assert gain == pytest.approx(-20 * np.log10(0.3), abs=0.05)


def test_one_program_per_batch_shape():
  measure(2)
  before = evaluation._sums._cache_size()
  measure(2)
  assert evaluation._sums._cache_size() == before


def test_every_clip_once():
  predict, state = toy_workdir.run_predict()
  seen = [
    np.asarray(output["video"])[np.asarray(output["valid"])]
    for output in evaluation.predictions(
      predict, state, source(), batch=2, progress=False
    )
  ]
  rng = np.random.default_rng(0)
  expected = np.stack([source().clip(i, rng)["video"] for i in range(5)])
  np.testing.assert_allclose(
    np.concatenate(seen), expected / 127.5 - 1.0, atol=1e-6
  )


def test_errors_name_what_is_wrong():
  with error_names(KeyError, "metrics", "psnrr", "psnr"):
    measure(2, {"psnrr": {}})
  with error_names(TypeError, "metrics/box_means", "causel", "causal"):
    measure(2, {"box_means": {"causel": True}})
  with error_names(TypeError, "metrics/psnr", "files", 5):
    measure(2, {"psnr": {"files": 3}})
  predict, state = toy_workdir.run_predict()

  def blind(state, batch):
    return {k: v for k, v in predict(state, batch).items() if k != "recon"}

  with error_names(TypeError, "psnr", "recon", "eval.metrics"):
    evaluation.evaluate(
      blind, state, source(), {"psnr": {}}, batch=2, context={}, progress=False
    )


def test_picked_clips():
  picked = evaluation.Picked(source(), [4, 1])
  rng = np.random.default_rng(0)
  assert len(picked) == 2
  assert picked.clip(0, rng)["label"] == 4
  predict, state = toy_workdir.run_predict()
  outputs = list(
    evaluation.predictions(predict, state, picked, batch=2, progress=False)
  )
  assert jax.device_get(outputs[0]["file"]).tolist() == [4, 1]


@pytest.fixture
def run(tmp_path, monkeypatch):
  toy_workdir.patch(monkeypatch)
  return toy_workdir.write(tmp_path / "run")


def test_open_run_restores_the_newest_ema(run):
  toy_workdir.save(run, 500, shift=0.25)
  opened = trained_run.open_run(run)
  assert opened.step == 500 and float(opened.state.ema["shift"]) == 0.25
  assert float(trained_run.open_run(run, step=400).state.ema["shift"]) == 0


def test_open_run_without_checkpoint(tmp_path, monkeypatch):
  toy_workdir.patch(monkeypatch)
  folder = toy_workdir.write(tmp_path / "run", checkpoints=())
  with error_names(FileNotFoundError, folder, "checkpoint.every"):
    trained_run.open_run(folder)


def test_verb_prints_and_writes(run, capsys):
  assert verb.main([f"--workdir={run}"]) == 0
  out = capsys.readouterr().out
  check_names(out, 400, 5)
  content = json.loads((run / "evaluation.json").read_text())
  assert content["metrics"]["psnr"] == pytest.approx(measure(2)["psnr"])


def test_verb_keeps_other_results(run):
  verb.main([f"--workdir={run}"])
  first = (run / "evaluation.json").read_text()
  verb.main([f"--workdir={run}"])  # the same question has the same answer
  assert not (run / "evaluation-2.json").exists()
  verb.main([f"--workdir={run}", "--clips=3"])
  assert (run / "evaluation.json").read_text() == first
  assert json.loads((run / "evaluation-2.json").read_text())["clips"] == 3
  verb.main([f"--workdir={run}", "--split=train", "--clips=4"])
  content = json.loads((run / "evaluation-train.json").read_text())
  assert content["clips"] == 4 and content["metrics"]["psnr"] > 0


def test_verb_help_shows_an_example(capsys):
  with pytest.raises(SystemExit) as stop:
    verb.main(["--help"])
  assert stop.value.code == 0
  assert "python -m magvit_jax evaluate --workdir=" in capsys.readouterr().out
