"""Exports that are damaged, of something else, or cannot be made."""

import json
import shutil

import jax
import numpy as np
import pytest

import magvit_jax
from helpers import untrained_tokenizer
from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax.checkpoints import saved_weights
from magvit_jax.export import programs, write
from magvit_jax.files import weight_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """An export for a TPU alone, and nothing of it but the encoder."""
  base = tmp_path_factory.mktemp("bad")
  run = untrained_tokenizer.write(base / "run")
  keep = programs.programs
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(programs, "programs", lambda c: {"encode": keep(c)["encode"]})
    return write.write(run, base / "out", platforms=["tpu"])


@pytest.fixture
def folder(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / "out")


def change(folder, **values):
  path = folder / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_another_layout_is_refused(folder):
  change(folder, layout=2, magvit_jax="9.9")
  with error_names(ValueError, folder, 2, 9.9, magvit_jax.__version__, 1):
    magvit_jax.load_tokenizer(folder)
  with error_names(ValueError, folder, 2, 9.9):
    programs.program(folder, "encode")


def test_truncated_and_altered_weights_are_refused(folder):
  path = folder / "params.safetensors"
  data = path.read_bytes()
  path.write_bytes(data[:-9])
  with error_names(ValueError, path, len(data) - 9, len(data)):
    magvit_jax.load_tokenizer(folder)
  # Without hashes, as `convert` leaves a folder, safetensors finds it.
  change(folder, files={})
  with error_names(ValueError, path):
    magvit_jax.load_tokenizer(folder)
  flipped = bytearray(data)
  flipped[-5] ^= 1
  path.write_bytes(flipped)
  magvit_jax.load_tokenizer(folder)
  files = {"params.safetensors": {"bytes": len(data), "sha256": "0" * 64}}
  change(folder, files=files)
  with error_names(ValueError, path, "sha256", "000000000000"):
    magvit_jax.load_tokenizer(folder)


def test_weights_of_another_network_are_listed(folder):
  config = json.loads((folder / "config.json").read_text())["config"]
  config["stage"]["backbone"]["width"] = 16
  change(folder, config=config)
  with error_names(ValueError, folder / "params.safetensors") as error:
    magvit_jax.load_tokenizer(folder)
  lines = str(error.value).splitlines()
  listed = [line for line in lines if "backbone/" in line]
  assert len(listed) == 3
  assert "backbone/decoder" in listed[0] and "(" in listed[0]


def test_another_step_than_the_exported_is_refused(folder):
  assert magvit_jax.load_tokenizer(folder, step=7).causal
  with error_names(ValueError, folder, 7, 3):
    magvit_jax.load_tokenizer(folder, step=3)


def test_a_program_that_is_missing_altered_or_of_no_use_here(folder):
  with error_names(
    ValueError, "encode.stablehlo", "tpu", "cpu", "--platforms=cpu"
  ):
    programs.program(folder, "encode")
  with error_names(ValueError, "encoder", "encode"):
    programs.program(folder, "encoder")
  path = folder / "encode.stablehlo"
  path.write_bytes(path.read_bytes() + b" ")
  with error_names(ValueError, path, "sha256"):
    programs.program(folder, "encode")
  path.unlink()
  with error_names(FileNotFoundError, path):
    programs.program(folder, "encode")


def test_jax_itself_says_which_platforms_a_program_is_for(folder):
  data = bytearray((folder / "encode.stablehlo").read_bytes())
  loaded = jax.export.deserialize(data)
  params = weight_file.read(folder / "params.safetensors")[0]
  video = np.zeros((1, 5, 16, 16, 3), np.float32)
  with error_names(ValueError, "tpu"):
    jax.jit(loaded.call)(params, video)


@pytest.mark.parametrize(
  "flags,named",
  [
    ("--platforms=cpu,tpus", ["tpus", "tpu"]),
    ("--platforms=cpu,cpu", ["--platforms", "cpu,cpu"]),
    ("--step=8", [8]),
    ("--out=gs://bucket/x", ["gs://bucket/x"]),
  ],
)
def test_flags_that_do_not_fit(whole, tmp_path, capsys, flags, named):
  args = [f"--workdir={whole.parent / 'run'}", f"--out={tmp_path / 'new'}"]
  assert command.main(["export", *args, flags]) == 2
  check_names(capsys.readouterr().err, *named)
  assert not (tmp_path / "new").exists()


def test_a_workdir_without_a_checkpoint(whole, tmp_path):
  with error_names(FileNotFoundError, tmp_path / "config.json"):
    write.write(tmp_path, tmp_path / "new")
  shutil.copy(whole.parent / "run" / "config.json", tmp_path)
  with error_names(OSError, tmp_path / "checkpoints"):
    write.write(tmp_path, tmp_path / "new")


def test_what_has_no_ids_or_is_another_stage(whole):
  config = saved_weights.config(whole.parent / "run")
  stage = {**config["stage"], "quantizer": {"name": "continuous", "width": 4}}
  with error_names(ValueError, "continuous"):
    programs.programs({**config, "stage": stage})
  with error_names(ValueError, "understanding", "tokenizer", "generator"):
    write.network({"stage": {"name": "understanding"}}, None)
