"""The weights of a perceptual loss: found, checked, kept with the run."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from helpers import tiny_generator as tiny
from helpers.errors import error_names
from magvit_jax import registry, sharding, tokenizers, tree_utils
from magvit_jax.checkpoints import (
  checkpointer,
  checksum,
  frozen_params,
  trained_run,
)
from magvit_jax.files import weight_file, workdirs
from magvit_jax.inference import video_codec
from magvit_jax.losses import perceptual
from magvit_jax.nets import resnet50, vgg16
from magvit_jax.stages import TrainState
from magvit_jax.tokenizers import build_tokenizer
from magvit_jax.training import dependencies, loop

LPIPS = dict(name="lpips", frames=1, fingerprint="", **vgg16.TINY)
RESNET = dict(name="resnet50", frames=1, fingerprint="", **resnet50.TINY)


def arrays_of(own, seed=0):
  """Weights of a loss by flat name."""
  rng = np.random.default_rng(seed)
  shapes = perceptual.build(own | {"weights": ""}, jnp.float32).abstract()
  return {
    name: rng.uniform(0.1, 0.6, x.shape).astype(np.float32)
    for name, x in tree_utils.named(shapes).items()
  }


def write(path, own=LPIPS, change=lambda arrays: arrays, notes=None, seed=0):
  weight_file.write(path, change(arrays_of(own, seed)), notes or {})
  return path


def config(path, own=LPIPS, **changes):
  """A run of a step with a perceptual loss, small beside its net."""
  weights = dict(loss_l2=1.0, loss_commitment=0.2, loss_entropy=0.1)
  stage = tiny.tokenizer_stage() | {
    "weights": weights | dict(loss_perceptual=0.1),
    "perceptual": own | {"weights": str(path)},
  }
  cfg = tiny.base(stage) | dict(steps=1) | changes
  cfg["eval"]["metrics"] = dict(psnr={})
  return ml_collections.ConfigDict(cfg)


def without(cfg):
  del cfg.stage.perceptual, cfg.stage.weights.loss_perceptual
  return cfg


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(workdir of a finished run, its file of weights), without the training."""
  top = tmp_path_factory.mktemp("top")
  path, folder = write(top / "lpips.safetensors"), top / "run"
  cfg, arrays = dependencies.resolve(config(path), folder)
  folder.mkdir()
  workdirs.write_config(folder, cfg)
  frozen_params.save(folder, arrays)
  ema = jax.tree.map(
    lambda x: jnp.ones(x.shape, x.dtype),
    tokenizers.abstract(build_tokenizer(tiny.TOKENIZER)),
  )
  bad = {"bad": jnp.zeros((), jnp.int32)}
  state = TrainState(jnp.int32(1), {"gen": ema}, {}, ema, arrays, bad)
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(1, state, force=True)
  saver.close()
  workdirs.mark_done(folder, 1)
  return folder, path


def test_the_config_names_the_weights_and_a_step_uses_them(trained):
  folder, path = trained
  saved = json.loads((folder / "config.json").read_text())["config"]
  _, arrays = dependencies.resolve(config(path), folder)
  mark = checksum.fingerprint(arrays["perceptual"])
  assert saved["stage"]["perceptual"]["fingerprint"] == mark
  stage = loop.make_parts(ml_collections.ConfigDict(saved)).stage
  state = jax.eval_shape(stage.init, jax.random.key(0), tiny.batch(), arrays)
  new, metrics = jax.eval_shape(
    stage.step, state, tiny.batch(), jax.random.key(0)
  )
  assert "loss_perceptual" in metrics
  assert jax.tree.structure(new.frozen) == jax.tree.structure(arrays)
  # Each of its arrays has a rule that says where it lies.
  sharding.lay(state, sharding.make_mesh())


def test_the_run_keeps_its_weights_when_the_file_is_gone(trained):
  folder, path = trained
  away = path.rename(path.with_suffix(".away"))
  try:
    cfg, arrays = dependencies.resolve(config(path), folder)
    assert loop.run(config(path), folder) == {"step": 1, "stopped": 0}
  finally:
    away.rename(path)
  assert registry.plain(cfg) == registry.plain(
    dependencies.resolve(config(path), folder)[0]
  )
  found = tree_utils.named(arrays["perceptual"])
  jax.tree.map(np.testing.assert_array_equal, dict(found), arrays_of(LPIPS))


def test_evaluation_and_the_codec_need_no_perceptual_weights(trained, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(trained[0], folder, ignore=shutil.ignore_patterns("frozen"))
  assert trained_run.open_run(folder).state.frozen == {}
  assert video_codec.load_tokenizer(folder).sizes


def test_other_weights_are_refused_even_by_force(trained, tmp_path):
  folder, path = trained
  other = write(tmp_path / "other.safetensors", seed=1)
  with error_names(ValueError, folder, "fingerprint"):
    loop.run(config(other), folder, "force")
  with error_names(ValueError, "resnet50"):
    loop.run(config(path, RESNET), folder, "force")
  pinned = LPIPS | dict(fingerprint="0123456789abcdef")
  with error_names(
    ValueError, "stage.perceptual.fingerprint", "0123456789abcdef"
  ):
    loop.run(config(path, pinned), tmp_path / "new")
  plain = tmp_path / "plain"
  plain.mkdir()
  workdirs.write_config(plain, without(config(path)))
  with error_names(
    ValueError, plain, "stage.perceptual.name", "--config.init_from"
  ):
    loop.run(config(path), plain, "force")
  assert not (tmp_path / "new").exists()


def zero_head(arrays):
  linear = [name for name in arrays if name.startswith("linear")]
  return arrays | {name: arrays[name] * 0 for name in linear}


def negative(arrays):
  return arrays | {"linear/relu1_2/scale": -arrays["linear/relu1_2/scale"]}


def nan(arrays):
  return arrays | {"net/conv1_1/bias": arrays["net/conv1_1/bias"] * np.nan}


def zero_logits(arrays):
  return arrays | {"net/head/kernel": arrays["net/head/kernel"] * 0}


@pytest.mark.parametrize(
  "own, change, notes, named",
  [
    (LPIPS, zero_head, {}, ["stage.perceptual", "lpips", 0.0]),
    (RESNET, zero_logits, {}, ["stage.perceptual", "resnet50", 0.0]),
    (LPIPS, negative, {}, ["linear/relu1_2"]),
    (LPIPS, nan, {}, ["net/conv1_1/bias"]),
    (LPIPS, lambda _: arrays_of(RESNET), {}, ["linear/relu1_2/scale", "(2,)"]),
    (
      RESNET,
      dict,
      {"origin": "flax"},
      ["origin", "flax", "torchvision"],
    ),
  ],
)
def test_weights_that_cannot_be_meant_are_refused(
  tmp_path, own, change, notes, named
):
  path = write(tmp_path / "w.safetensors", own, change, notes)
  with error_names(ValueError, path, *named):
    loop.run(config(path, own), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_missing_weights_are_named_and_planning_needs_none(tmp_path):
  with error_names(ValueError, "stage.perceptual.weights", "lpips"):
    loop.run(config(""), tmp_path / "run")
  with error_names(FileNotFoundError, tmp_path / "none.safetensors"):
    loop.run(config(tmp_path / "none.safetensors"), tmp_path / "run")
  shapes = tree_utils.named(frozen_params.shapes(config("")))
  wanted = {f"perceptual/{k}": v.shape for k, v in arrays_of(LPIPS).items()}
  assert {name: x.shape for name, x in shapes.items()} == wanted
  cfg = without(config(""))
  assert dependencies.resolve(cfg, tmp_path) == (cfg, {})
  assert frozen_params.shapes(cfg) == {}
