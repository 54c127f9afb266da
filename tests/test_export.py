"""Exports of a tokenizer: programs, reader, load_tokenizer and card."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import magvit_jax
from helpers import tiny_generator, untrained_tokenizer
from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax.checkpoints import checksum
from magvit_jax.export import card, programs, write
from magvit_jax.files import weight_file

README = pathlib.Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """(workdir, export of it for a CPU and a TPU)."""
  base = tmp_path_factory.mktemp("export")
  run = untrained_tokenizer.write(base / "run")
  scores = {"step": 7, "split": "eval", "clips": 3, "metrics": {"psnr": 21.5}}
  (run / "evaluation.json").write_text(json.dumps(scores))
  scores = {"step": 5, "split": "eval", "clips": 3, "metrics": {"psnr": 20.5}}
  (run / "evaluation-2.json").write_text(json.dumps(scores))
  row = {"step": 7, "kind": "eval", "eval_psnr": 22.5}
  (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
  args = f"--workdir={run} --out={base / 'out'} --platforms=cpu,tpu"
  assert command.main(["export", *args.split(), "--license=CC0"]) == 0
  return run, base / "out"


@pytest.fixture(scope="module")
def ours(folders):
  return magvit_jax.load_tokenizer(folders[0])


@pytest.fixture(scope="module")
def theirs(folders):
  """(params, encode, decode) of the export."""
  arrays = weight_file.read(folders[1] / "params.safetensors")[0]
  return arrays, *(
    programs.program(folders[1], n) for n in ("encode", "decode")
  )


def clips(b, t, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (b, t, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("b,t", [(2, 5), (1, 1)])
def test_programs_take_any_number_of_clips_and_frames(ours, theirs, b, t):
  params, encode, decode = theirs
  video = clips(b, t)
  ids = np.asarray(encode(params, video))
  np.testing.assert_array_equal(ids, ours.encode(video))
  back = np.asarray(decode(params, ids))
  assert back.dtype == np.float32 and np.abs(back).max() <= 1
  np.testing.assert_allclose(back, ours.decode(ids), atol=1e-5)


def test_weights_are_arguments(folders, theirs):
  params, encode, decode = theirs
  video = clips(2, 5)
  ids = encode(params, video)
  other = jax.tree.map(lambda x: x * np.float32(1.5) + np.float32(0.1), params)
  assert (np.asarray(encode(other, video)) != ids).any()
  assert np.abs(decode(other, ids) - decode(params, ids)).max() > 1e-3
  shapes = {
    k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in params.items()
  }
  text = encode.trace(shapes, video).lower().as_text()
  constants = re.findall(r"dense<(\[[^>]*\]|\"[^\"]*\")>", text)
  assert max(map(len, constants), default=0) < 1000


def test_each_platform_gets_its_own_form(monkeypatch):
  monkeypatch.setattr("magvit_jax.nn.conv.WORTH", 0)
  stage = {**tiny_generator.tokenizer_stage(), "dtype": "auto"}
  config = {"stage": stage, "data": {"frames": 5, "size": (16, 16)}}
  shapes = programs.weight_shapes(config)
  encode = programs.programs(config)["encode"]
  texts = {
    p: programs.export("encode", encode, shapes, (p,)).mlir_module()
    for p in ("cpu", "tpu")
  }
  # A CPU convolves frames, in float32; a TPU whole clips, in bfloat16.
  frames = re.compile(r"convolution.*dim_numbers = \[b, 0, 1, f\]")
  assert len(frames.findall(texts["cpu"])) > 3 and "bf16" not in texts["cpu"]
  assert not frames.search(texts["tpu"]) and "bf16" in texts["tpu"]


def test_load_tokenizer_reads_it_as_it_reads_the_workdir(folders, ours):
  same = magvit_jax.load_tokenizer(folders[1])
  assert same.fingerprint == ours.fingerprint
  assert (same.strides, same.sizes) == (ours.strides, ours.sizes)
  video = clips(1, 7)[0]
  ids = same.encode(video)
  np.testing.assert_array_equal(ids, ours.encode(video))
  np.testing.assert_array_equal(same.decode(ids), ours.decode(ids))


def test_config_says_what_the_programs_take(folders):
  about = json.loads((folders[1] / "config.json").read_text())
  encode = about["programs"]["encode"]
  assert encode["arguments"]["video"]["shape"] == ["b", "2*k - 1", 16, 16, 3]
  assert encode["results"] == {"shape": ["b", "k", 8, 8, 2], "dtype": "int32"}
  assert about["platforms"] == ["cpu", "tpu"] and about["step"] == 7
  assert (about["clip"], about["grid"]) == ([5, 16, 16, 3], [3, 8, 8])
  assert about["config"]["stage"]["backbone"]["name"] == "causal3d"
  for name, noted in about["files"].items():
    assert checksum.file_sha256(folders[1] / name) == noted["sha256"]
  # Whoever publishes it need not publish where the run was.
  assert "/home/somebody" not in (folders[1] / "config.json").read_text()


def test_the_card_says_what_the_run_says(folders):
  text = (folders[1] / "MODEL_CARD.md").read_text()
  check_names(text, "moving_digits", "films", "CC0")
  assert "/home" not in text
  (steps,) = (line for line in text.splitlines() if line.startswith("| steps"))
  check_names(steps, 7, 2)
  own, other, last = text.partition("## Measured")[2].split("From ")[1:]
  assert "| psnr | 20.5 dB" in own and "step 5" in own and "other wei" in own
  assert "| psnr | 21.5 dB" in other and "step 7" in other
  assert "other weights" not in other and "| psnr | 22.5 dB" in last
  hashed = checksum.file_sha256(folders[1] / "params.safetensors")
  assert f"sha256 `{hashed}`" in text
  bits = 3 * 64 * np.log2(4) * 2 / (5 * 256)
  assert f"| bits per pixel | {bits:.4g}," in text


def test_the_reader_needs_jax_numpy_and_safetensors_alone(folders, ours):
  _, out = folders
  video = clips(2, 5)
  np.save(out.parent / "video.npy", video)
  blocks = re.findall(
    r"```python\n(.*?)```", (out / "MODEL_CARD.md").read_text(), re.S
  )
  reader = blocks[0]
  assert reader == card.READER.format(folder="out")
  assert len(reader.splitlines()) <= 14
  assert card.READER.format(folder="DIR") in README.read_text()
  code = f"""
import sys
sys.path += {[p for p in sys.path if p.endswith("site-packages")]!r}
class Absent:
  def find_spec(self, name, *rest):
    if name.partition(".")[0] in ("magvit_jax", "flax", "optax", "orbax"):
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
{reader}
assert ids.shape == (1, 3, 8, 8, 2) and video.shape == (1, 5, 16, 16, 3)
ids = programs["encode"](params, np.load("video.npy"))
np.savez("read.npz", ids=ids, video=programs["decode"](params, ids))
"""
  python = [sys.executable, "-I", "-W", "error", "-c", code]
  done = subprocess.run(python, cwd=out.parent, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  made = np.load(out.parent / "read.npz")
  np.testing.assert_array_equal(made["ids"], ours.encode(video))
  np.testing.assert_allclose(made["video"], ours.decode(made["ids"]), atol=1e-5)


def test_nothing_is_overwritten_or_left_half_made(folders, monkeypatch):
  run, out = folders
  with error_names(FileExistsError, f"--out={out}"):
    write.write(run, out)
  monkeypatch.setattr(write, "save_programs", lambda *_: 1 / 0)
  before = sorted(out.parent.iterdir())
  with pytest.raises(ZeroDivisionError):
    write.write(run, out.parent / "new")
  assert sorted(out.parent.iterdir()) == before
