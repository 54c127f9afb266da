"""load_tokenizer on a workdir with the real, untrained, causal tokenizer."""

import importlib
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_api import pixels

import magvit_jax
from helpers.errors import error_names
from magvit_jax import __main__ as command
from magvit_jax import tokenizers
from magvit_jax.checkpoints import checkpointer, checksum
from magvit_jax.data import video_io, video_write
from magvit_jax.files import token_file, workdirs
from magvit_jax.inference import video_codec
from magvit_jax.stages import TrainState

STAGE = {
  "name": "tokenizer",
  "backbone": {
    "name": "causal3d",
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "strides": ((2, 2, 2),),
    "patch": (2, 4, 4),
    "norm": "position",
  },
  "dtype": "float32",
}


@pytest.fixture(scope="module", params=["lfq", "fsq"])
def run(request, tmp_path_factory):
  return saved(tmp_path_factory.mktemp(request.param), request.param)


def saved(folder, quantizer, backbone=STAGE["backbone"]):
  """(workdir, module, params) of a run that saved its first step."""
  tiny = importlib.import_module(f"magvit_jax.quantizers.{quantizer}").TINY
  codes = {"name": quantizer, **tiny}
  stage = {**STAGE, "backbone": backbone, "quantizer": codes}
  module = tokenizers.build_tokenizer(stage)
  video = jnp.zeros((1, 4 + module.backbone.causal, 8, 8, 3))
  # Drawn rather than initialized: that would compile for longer than we test.
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype),
    jax.eval_shape(module.init, jax.random.key(0), video)["params"],
  )
  state = TrainState(
    step=jnp.asarray(1, jnp.int32),
    params=jax.tree.map(lambda x: x + 1, params),
    opt={"count": jnp.zeros((), jnp.int32)},
    ema=params,
    frozen={},
    extra={"bad": jnp.zeros((), jnp.int32)},
  )
  saver = checkpointer.Checkpointer(folder, every=1, keep=1)
  saver.save(1, state)
  saver.close()
  workdirs.write_config(folder, {"stage": stage, "data": {"frames": 4}})
  return folder, module, params


def test_it_holds_the_moving_average(run):
  folder, _, params = run
  tok = magvit_jax.load_tokenizer(folder)
  assert tok.fingerprint == checksum.fingerprint(params)
  assert tok.strides == (4, 8, 8)


def test_pieces_give_what_one_pass_gives(run):
  folder, module, params = run
  video = pixels(37, 16, 24)
  tok = magvit_jax.load_tokenizer(folder)
  ids = tok.encode(video)
  params = {"params": params}
  whole = jax.jit(lambda v: module.apply(params, v, method=module.encode))
  expected = whole(video_codec.to_float(jnp.asarray(video[None])))[0]
  assert ids.shape == expected.shape and ids.shape[:3] == (10, 2, 3)
  # Sums of float32 depend on the shape, so a latent on a threshold may flip.
  assert np.mean(ids != expected) < 0.01
  back = jax.jit(lambda i: module.apply(params, i, method=module.decode))
  np.testing.assert_allclose(
    tok.decode(ids), np.clip(back(jnp.asarray(ids[None]))[0], -1, 1), atol=1e-4
  )


def test_tiles_give_the_ids_of_the_whole_frame(run):
  folder, _, _ = run
  video = pixels(5, 40, 600)
  whole = magvit_jax.load_tokenizer(folder, tile=1024).encode(video)
  tiled = magvit_jax.load_tokenizer(folder, tile=256, overlap=64)
  assert np.mean(tiled.encode(video) != whole) < 0.01


def test_the_verbs_run_on_a_workdir(run, tmp_path, capsys):
  folder, _, _ = run
  source, tokens, back = (
    str(tmp_path / name) for name in ("in.mp4", "out.npz", "back.mp4")
  )
  video_write.write_video(source, pixels(7, 18, 26), 12)
  assert command.main(["encode", f"--workdir={folder}", source, tokens]) == 0
  assert command.main(["decode", f"--workdir={folder}", tokens, back]) == 0
  info = video_io.probe(back)
  assert (info.frames, info.height, info.width, info.fps) == (7, 18, 26, 12)
  capsys.readouterr()
  assert command.main(["decode", f"--workdir={folder}", tokens, back]) == 2
  assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("run", ["lfq"], indirect=True)
def test_memory_does_not_grow_with_the_length(run):
  tok = magvit_jax.load_tokenizer(run[0])
  device, host, alive = [], [], weakref.WeakSet()

  def frames(count):
    for i in range(count):
      if i % 64 == 0:
        device.append(sum(x.nbytes for x in jax.live_arrays()))
        host.append(len(alive))
      frame = Frame((1, 1, 8, 8, 3), np.uint8)
      frame[:] = i % 256
      alive.add(frame)
      yield frame

  given = sum(ids.shape[1] for ids in tok.encode_stream(frames(4_097)))
  assert given == 1_025 and len(device) == 65
  # Beside the weights: the carry on the device, frames of one piece here.
  assert set(device[1:]) == {device[1]} and device[1] > device[0]
  assert max(host) <= 1 + video_codec.LATENTS_PER_PIECE * tok.strides[0]
  # The first piece's program, and one for all the others.
  assert tok._encode._cache_size() == 2


class Frame(np.ndarray):
  """Frames that can be counted while they live."""

  __hash__ = object.__hash__


def test_a_tokenizer_that_is_not_causal_goes_clip_by_clip(tmp_path):
  net = {key: STAGE["backbone"][key] for key in ("width", "blocks")}
  net |= dict(name="cnn3d", multipliers=(1, 2, 1), strides=((2, 2, 2),) * 2)
  folder, module, params = saved(tmp_path / "run", "lfq", net)
  video = pixels(7, 8, 10)  # one clip of 4 frames, and 3 of the next
  source, tokens, back = (
    str(tmp_path / name) for name in ("in.mkv", "out.npz", "back.mkv")
  )
  video_write.write_video(source, video, 12, quality=0)
  assert command.main(["encode", f"--workdir={folder}", source, tokens]) == 0
  assert command.main(["decode", f"--workdir={folder}", tokens, back]) == 0
  info = video_io.probe(back)
  assert (info.frames, info.height, info.width, info.fps) == (7, 8, 10, 12)
  ids, meta = token_file.read(tokens)
  assert ids.shape[:3] == (2, 2, 3) and meta.pad == (1, 0, 2)
  read = np.pad(
    video_io.read_all(source), ((0, 1), (0, 0), (0, 2), (0, 0)), mode="edge"
  )
  clips = video_codec.to_float(jnp.asarray(read.reshape(2, 4, 8, 12, 3)))
  alone = jax.jit(
    lambda v: module.apply({"params": params}, v, method=module.encode)
  )(clips)
  assert np.mean(ids != alone.reshape(ids.shape)) < 0.01


def test_what_cannot_be_loaded_is_said(run, tmp_path):
  folder, _, _ = run
  with error_names(OSError, 7, "[1]"):
    magvit_jax.load_tokenizer(folder, step=7)
  workdirs.write_config(tmp_path, {"stage": {"name": "generator"}})
  with error_names(ValueError, "generator", "tokenizer"):
    magvit_jax.load_tokenizer(tmp_path)
