"""Files, names and numbers as users have them: one clear error, or it works."""

import json
import os
import pathlib
import subprocess
import sys
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import video_files
from magvit_jax import __main__ as command
from magvit_jax import messages, types
from magvit_jax.checkpoints import checkpointer
from magvit_jax.data import video_folder
from magvit_jax.distributed import processes
from magvit_jax.files import paths, token_file, weight_file, workdirs
from magvit_jax.hardware import compile_cache
from magvit_jax.monitoring import liveness
from magvit_jax.stages import TrainState

META = token_file.Meta(
  frames=9,
  height=16,
  width=16,
  pad=(0, 0, 0),
  fps="25",
  strides=(4, 8, 8),
  sizes=(8, 8),
  fingerprint="0123",
  source="a.mp4",
)
IDS = np.arange(3 * 2 * 2 * 2).reshape(3, 2, 2, 2) % 8


@pytest.fixture
def tokens(tmp_path):
  path = tmp_path / "a.npz"
  token_file.write(path, IDS, META)
  return path


def test_a_changed_byte_of_a_token_file_is_an_error_that_names_it(tokens):
  whole, rng, refused = tokens.read_bytes(), np.random.default_rng(0), 0
  for _ in range(300):
    data = bytearray(whole)
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    tokens.write_bytes(data)
    try:
      ids, _ = token_file.read(tokens)
      np.testing.assert_array_equal(ids, IDS)
    except ValueError as error:
      refused += 1
      assert str(tokens) in str(error)
  assert refused > 200


CHANGES = {
  "list": lambda m: [1],
  "lacks pad": lambda m: {k: v for k, v in m.items() if k != "pad"},
  "unknown key": lambda m: {**m, "extra": 1},
  "fps of words": lambda m: {**m, "fps": "abc"},
  "fps of zero": lambda m: {**m, "fps": "1/0"},
  "no frames": lambda m: {**m, "frames": 0},
  "length of words": lambda m: {**m, "height": "16"},
  "sizes of others": lambda m: {**m, "sizes": [4, 4]},
  "one factor": lambda m: {**m, "sizes": [8]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_foreign_token_files_are_named(tokens, change):
  with np.load(tokens) as file:
    meta = json.loads(str(file["meta"]))
  np.savez(tokens, ids=IDS, meta=json.dumps(CHANGES[change](meta)))
  with pytest.raises(ValueError) as caught:
    token_file.read(tokens)
  assert str(tokens) in str(caught.value)


def test_a_changed_byte_of_a_weight_file_is_named(tmp_path):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, kernel=np.arange(40.0))
  whole, rng = path.read_bytes(), np.random.default_rng(0)
  for _ in range(100):
    data = bytearray(whole)
    data[rng.integers(len(data))] ^= 255
    path.write_bytes(data)
    try:
      weight_file.read(path)
    except ValueError as error:
      assert str(path) in str(error)


@pytest.mark.parametrize(
  "text",
  ["[]", "{}", "3", "\xff", '{"config": 1}', '{"config": {"stage": 5}}']
  + ["[" * 100_000],
)
@pytest.mark.parametrize("verb", ["encode", "evaluate", "export", "report"])
def test_a_foreign_config_is_named_in_one_line(tmp_path, capsys, verb, text):
  run = tmp_path / "run"
  run.mkdir()
  (run / "config.json").write_text(text, encoding="latin-1")
  video = video_files.write(tmp_path / "a.mp4", video_files.pictures(3, 16, 16))
  more = {
    "encode": [video, str(tmp_path / "a.npz")],
    "export": [f"--out={tmp_path / 'out'}"],
  }.get(verb, [])
  assert command.main([verb, f"--workdir={run}", *more]) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error: ") and str(run) in error


@pytest.mark.parametrize("verb", ["encode", "evaluate", "doctor"])
def test_a_config_that_cannot_be_built_is_named(tmp_path, capsys, verb):
  text = json.dumps({"config": {"stage": {"name": "tokenizer"}}})
  (tmp_path / "config.json").write_text(text)
  video = video_files.write(tmp_path / "a.mp4", video_files.pictures(3, 16, 16))
  more = [video, str(tmp_path / "a.npz")] if verb == "encode" else []
  assert command.main([verb, f"--workdir={tmp_path}", *more]) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert str(tmp_path / "config.json") in error


def test_seeds_each_have_a_key():
  seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63 - 1]
  keys = {str(jax.random.key_data(types.seed_key(s))) for s in seeds}
  assert len(keys) == len(seeds)
  for seed in (-1, 2**63, 10**20):
    with pytest.raises(ValueError) as caught:
      types.seed_key(seed)
    assert str(seed) in str(caught.value)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_path_is_refused(name):
  with pytest.raises(ValueError) as caught:
    paths.as_path(name)
  assert repr(name) in str(caught.value)


def test_the_home_folder_is_expanded(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert paths.as_path("~/run") == tmp_path / "run"
  assert paths.absolute("~/run") == tmp_path / "run"
  assert paths.as_path("a~/run") == pathlib.Path("a~/run")


@pytest.mark.parametrize("name", ["run [v2]", "what?", "a*b", "[", "caf\udce9"])
def test_checkpoints_below_any_name(tmp_path, name):
  folder = tmp_path / name
  folder.mkdir()
  weights = {"kernel": jnp.arange(6.0).reshape(2, 3)}
  state = TrainState(
    np.int32(3), weights, {}, weights, {}, {"bad": jnp.int32(0)}
  )
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(3, state)
  saver.wait()
  saver.close()
  back = checkpointer.load_params(folder, weights, "ema", None)
  np.testing.assert_array_equal(back["kernel"], weights["kernel"])


def test_text_with_names_that_are_not_utf8(tmp_path):
  name = os.fsdecode(b"caf\xe9.mp4")
  paths.write_text(tmp_path / "a.html", f"<p>{name}</p>")
  assert b"caf\\udce9.mp4" in (tmp_path / "a.html").read_bytes()
  path = video_files.write(tmp_path / "a.mp4", video_files.pictures(3))
  os.rename(path, tmp_path / name)
  source = video_folder.Source(
    split="train", root=str(tmp_path), frames=1, size=(8, 8), lines=8
  )
  assert source.files == (name,)
  assert source.clip(0, np.random.default_rng(0))["video"].shape[0] == 1


def folders(root, names):
  data = pathlib.Path(
    video_files.write(root / "one.mp4", video_files.pictures(3, 16, 16))
  ).read_bytes()
  for k in range(24):
    for name in names:
      path = root / "videos" / f"v{k:02d}" / f"{name.format(k)}.mp4"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
  return {
    split: set(
      video_folder.Source(
        split=split,
        root=str(root / "videos"),
        frames=1,
        size=(8, 8),
        lines=8,
        eval_clips=48,
      ).files
    )
    for split in ("train", "eval")
  }


@pytest.mark.parametrize("names", [("rgb",), ("rgb", "depth")])
def test_files_of_equal_names_are_split_by_their_path(tmp_path, names):
  sides = folders(tmp_path, names)
  assert sides["train"] and sides["eval"]
  assert not sides["train"] & sides["eval"]
  assert len(sides["train"] | sides["eval"]) == 24 * len(names)


def test_files_of_own_names_keep_their_side_when_moved(tmp_path):
  sides = folders(tmp_path, ("clip{}",))
  held = {name.rpartition("/")[2] for name in sides["eval"]}
  flat = tmp_path / "flat"
  flat.mkdir()
  for path in (tmp_path / "videos").rglob("*.mp4"):
    path.rename(flat / path.name)
  source = video_folder.Source(
    split="eval", root=str(flat), frames=1, size=(8, 8), lines=8
  )
  assert set(source.files) == held


def sleeper():
  return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def mark_of(pid):
  return "/".join(
    [*liveness.mark().split("/")[:-2], str(pid), liveness._start(pid)]
  )


def test_one_live_run_per_workdir(tmp_path):
  with sleeper() as other:
    note = tmp_path / liveness.RUNNING
    note.write_text(mark_of(other.pid))
    with pytest.raises(ValueError) as caught, liveness.only_run(tmp_path):
      pass
    assert str(other.pid) in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert note.read_text() == mark_of(other.pid)
    other.kill()
  with liveness.only_run(tmp_path):  # what a kill left is replaced
    assert note.read_text() == liveness.mark()
  assert not note.exists()


@pytest.mark.parametrize(
  "text", ["", "rubbish", "boot/pid:[1]/77/5", "a/b/c/d"]
)
def test_notes_of_elsewhere_do_not_block(tmp_path, text):
  (tmp_path / liveness.RUNNING).write_text(text)
  with liveness.only_run(tmp_path):
    pass
  assert not (tmp_path / liveness.RUNNING).exists()


def test_a_failing_run_frees_its_workdir(tmp_path):
  with pytest.raises(KeyError), liveness.only_run(tmp_path):
    raise KeyError("of the run")
  assert not (tmp_path / liveness.RUNNING).exists()


def test_the_refusal_reaches_every_process(tmp_path, monkeypatch):
  monkeypatch.setattr(processes, "of_first", lambda owner: "4711")
  with pytest.raises(ValueError) as caught, liveness.only_run(tmp_path):
    pass
  assert "4711" in str(caught.value)


def test_without_a_home_there_is_no_cache(monkeypatch):
  def no_home():
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "home", no_home)
  values = {}
  config = python_types.SimpleNamespace(
    jax_compilation_cache_dir=None, update=values.__setitem__
  )
  monkeypatch.setattr(compile_cache.jax, "config", config)
  compile_cache.enable()
  assert not values


def test_arithmetic_errors_are_one_line():
  for error in (ZeroDivisionError("x"), OverflowError("y"), EOFError("z")):
    assert isinstance(error, messages.USER_ERRORS)
    assert messages.text(error) == str(error)


def test_what_names_config_json(tmp_path):
  with pytest.raises(ValueError) as caught, workdirs.blaming(tmp_path):
    raise KeyError("backbone")
  assert str(tmp_path / "config.json") in str(caught.value)
  assert "backbone" in str(caught.value)
