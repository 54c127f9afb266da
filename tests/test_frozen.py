"""A generator's run keeps its tokenizer, and takes no other."""

import json
import shutil

import jax
import numpy as np
import pytest

from helpers import tiny_generator as tiny
from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.checkpoints import (
  checksum,
  frozen_params,
  manifest,
  trained_run,
)
from magvit_jax.cli import evaluate as verb
from magvit_jax.training import dependencies, loop


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  return tiny.write_tokenizer(tmp_path_factory.mktemp("t") / "tokenizer")


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
  """A generator's run of two steps, and what it returned."""
  folder = tmp_path_factory.mktemp("g") / "generator"
  return folder, loop.run(tiny.config(tokenizer), folder)


def config_of(folder):
  return json.loads((folder / "config.json").read_text())["config"]


def test_the_run_measures_itself_beside_its_baselines(trained):
  result = trained[1]
  for name in ("cross_entropy", "cross_entropy_unigram", "psnr_predicted"):
    assert np.isfinite(result[f"eval_{name}"]), name
  assert {"eval_token_accuracy_repeat", "eval_psnr_ceiling"} <= result.keys()


def test_the_workdir_holds_all_that_is_needed(trained, tokenizer):
  folder, config = trained[0], config_of(trained[0])
  assert config["tokenizer"]["backbone"]["name"] == "causal3d"
  assert config["tokenizer"]["fingerprint"] == checksum.fingerprint(
    tiny.tokenizer_params()
  )
  assert config["clips"]["shape"] == list(tiny.SHAPE)
  assert config["clips"]["labels"] == [str(k) for k in range(10)]
  kept = frozen_params.restore(folder, config)["tokenizer"]
  jax.tree.map(np.testing.assert_array_equal, kept, tiny.tokenizer_params())
  assert tokenizer.exists()


def test_an_opened_run_repeats_its_evaluation(trained, capsys):
  folder, result = trained
  run = trained_run.open_run(folder)
  assert sum(float(count.sum()) for count in run.state.extra["counts"]) > 0
  assert verb.main([f"--workdir={folder}"]) == 0
  assert "cross_entropy_unigram" in capsys.readouterr().out
  saved = json.loads((folder / "evaluation.json").read_text())["metrics"]
  for name, value in saved.items():
    assert result[f"eval_{name}"] == pytest.approx(value, rel=1e-5), name


def test_a_run_goes_on_without_the_tokenizers_workdir(trained, tokenizer):
  folder = trained[0]
  cfg = tiny.config(tokenizer)
  away = tokenizer.rename(tokenizer.with_name("away"))
  try:
    resolved, arrays = dependencies.resolve(cfg, folder)
    assert loop.run(cfg, folder) == {"step": 2, "stopped": 0}
  finally:
    away.rename(tokenizer)
  assert registry.plain(resolved) == registry.plain(
    dependencies.resolve(cfg, folder)[0]
  )
  jax.tree.map(
    np.testing.assert_array_equal, arrays["tokenizer"], tiny.tokenizer_params()
  )


@pytest.mark.parametrize("resume", ["auto", "force"])
def test_another_tokenizer_is_refused(trained, tmp_path, resume):
  other = tiny.write_tokenizer(tmp_path / "other", seed=3)
  before = (trained[0] / "config.json").read_text()
  with error_names(ValueError, trained[0], "fingerprint", "--workdir"):
    loop.run(tiny.config(other), trained[0], resume)
  assert (trained[0] / "config.json").read_text() == before


def test_other_labels_are_refused(trained, tokenizer):
  resolved, _ = dependencies.resolve(tiny.config(tokenizer), trained[0])
  source = registry.build("data", tiny.DATA, split="train")
  assert dependencies.describe(resolved, source) == resolved

  class Other:
    shape, labels = source.shape, ("cat", "dog")

  with error_names(ValueError, "('cat', 'dog')"):
    dependencies.describe(resolved, Other())


def test_wrong_workdirs_and_fingerprints_are_named(
  trained, tokenizer, tmp_path
):
  with error_names(FileNotFoundError, "tokenizer.workdir", tmp_path / "none"):
    loop.run(tiny.config(tmp_path / "none"), tmp_path / "g")
  with error_names(ValueError, "tokenizer.workdir", trained[0], "generator"):
    loop.run(tiny.config(trained[0]), tmp_path / "g")
  cfg = tiny.config(tokenizer)
  cfg.tokenizer.fingerprint = "0123456789abcdef"
  with error_names(
    ValueError, tokenizer, "tokenizer.fingerprint", "0123456789abcdef"
  ):
    loop.run(cfg, tmp_path / "g")
  assert not (tmp_path / "g").exists()


def test_damaged_frozen_weights_are_found(trained, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(trained[0], copy)
  (copy / "frozen" / "sha256").write_text("0" * 64)
  with error_names(manifest.DamagedError, copy / "frozen", "000000000000"):
    trained_run.open_run(copy)


def test_stages_without_a_tokenizer_are_left_alone(tmp_path):
  cfg = tiny.config(tmp_path)
  del cfg.tokenizer
  assert dependencies.resolve(cfg, tmp_path) == (cfg, {})
  assert dependencies.describe(cfg, None) is cfg
  assert (
    frozen_params.stage_args(cfg) == {}
    and frozen_params.restore(tmp_path, cfg) == {}
  )
