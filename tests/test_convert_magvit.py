"""MAGVIT's official Flax checkpoints in, the same ids and pixels; and back."""

import json

import flax.serialization
import numpy as np
import pytest
from parity import magvit_tokenizer as peer

import magvit_jax
from helpers.errors import check_names, error_names
from magvit_jax.__main__ import main
from magvit_jax.convert import reading, tokenizer_folder
from magvit_jax.convert.tokenizers import Model, magvit
from magvit_jax.files import weight_file

TINY = Model(
  dict(
    name="cnn3d",
    width=peer.TINY["filters"],
    multipliers=peer.TINY["channel_multipliers"],
    blocks=peer.TINY["num_enc_res_blocks"],
    strides=((2, 2, 2), (1, 2, 2)),
    pixels="unit",
  ),
  dict(
    magvit.MODELS["ucf101_B"].quantizer,
    size=peer.TINY["codebook_size"],
    width=peer.TINY["embedding_dim"],
  ),
  frames=peer.VIDEO[1],
  size=peer.VIDEO[2:4],
)


@pytest.fixture(scope="module")
def golden():
  with np.load(peer.GOLDEN) as file:
    return dict(file)


@pytest.fixture(scope="module")
def public(golden):
  """The arrays that the official module ran with, by its names."""
  return peer.drawn(json.loads(str(golden["tiny"])))


@pytest.fixture(scope="module")
def place(public, tmp_path_factory):
  """A folder with a training checkpoint, as flax.training writes it."""
  place = tmp_path_factory.mktemp("magvit")
  raw = {name: np.full_like(a, 9.0) for name, a in public.items()}
  state = dict(
    global_step=5,
    g_params=peer.nested(raw),
    ema_params=peer.nested(public),
    d_params={"Conv_0": {"bias": np.ones(3, np.float32)}},
    metadata=None,
  )
  whole = flax.serialization.msgpack_serialize(state)
  (place / "checkpoint_5").write_bytes(whole)
  return place


@pytest.fixture(scope="module", autouse=True)
def tiny():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(magvit.MODELS, "tiny", TINY)
    yield


def verb(*flags):
  return main(["convert", *map(str, flags)])


def test_ids_and_pixels_are_those_of_the_official_code(golden, place):
  out, given = place / "ours", f"--input={place / 'checkpoint_5'}"
  assert verb("--from=magvit", "--model=tiny", given, f"--out={out}") == 0
  tok = magvit_jax.load_tokenizer(out)
  assert (tok.strides, tok.sizes, tok.causal) == ((2, 4, 4), (32,), False)
  ids = tok.encode(2 * peer.clip(peer.VIDEO) - 1)
  assert len(np.unique(golden["ids"])) > 8
  np.testing.assert_array_equal(ids[..., 0], golden["ids"])
  recon = np.clip(2 * golden["recon"] - 1, -1, 1)
  assert np.std(recon) > 0.1
  np.testing.assert_allclose(tok.decode(ids), recon, atol=1e-4)


def test_a_tokenizer_of_ours_goes_back_as_it_came(place, public):
  out, given = place / "back.safetensors", f"--input={place / 'ours'}"
  assert verb("--from=ours", "--to=magvit", given, f"--out={out}") == 0
  arrays, notes = weight_file.read(out)
  assert notes == {"layout": "magvit"} and arrays.keys() == public.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, public[name])


@pytest.mark.parametrize("name", ["ucf101_B", "bair_L"])
def test_published_nets_have_the_official_names_and_shapes(golden, name):
  stage = magvit.MODELS[name].config["stage"]
  found = tokenizer_folder.public_shapes(magvit, stage)
  shapes = {name: list(leaf.shape) for name, leaf in found.items()}
  assert shapes == json.loads(str(golden["full"]))[name]


def test_sizes_differ_in_width_alone(golden):
  full = json.loads(str(golden["full"]))
  for data in ("ucf101", "bair"):
    base, large = (magvit.MODELS[f"{data}_{size}"] for size in "BL")
    assert large == base._replace(backbone={**base.backbone, "width": 128})
    assert full[f"{data}_B"].keys() == full[f"{data}_L"].keys()


@pytest.mark.parametrize("where", magvit.PLACES)
def test_weights_are_found_in_every_kind_of_checkpoint(where):
  state = {f"{where}params/a": np.ones(2), "opt_state/a": np.zeros(2)}
  assert magvit.select(state).keys() == {"a"}


def test_other_files_and_tokenizers_are_refused(place, public, capsys):
  def error(*flags):
    assert verb(*flags) == 2
    return capsys.readouterr().err

  whole, out = place / "checkpoint_5", f"--out={place / 'none'}"
  cut = place / "checkpoint_6"
  cut.write_bytes(whole.read_bytes()[:-9])
  into = "--from=magvit", "--model=tiny", out
  check_names(error(*into, f"--input={cut}"), cut)
  few = place / "few.npz"
  np.savez(few, **{k: a for k, a in public.items() if "Conv_1" not in k})
  text = error(*into, f"--input={few}")
  check_names(text, few, "decoder/Conv_1/bias", "(64,)")
  given = f"--input={whole}"
  check_names(error("--from=magvit", given, out), "--model", "''", "tiny")
  text = error("--from=vgg16_lpips", "--model=tiny", given, out)
  check_names(text, "vgg16_lpips", "--model")
  text = error("--from=magvit", "--to=magvit", given, out)
  check_names(text, "--from", "--to", "ours")
  assert not (place / "none").exists()
  there = "--from=magvit", "--model=tiny", given, f"--out={place}"
  check_names(error(*there), f"--out={place}")
  file = f"--out={place / 'none.safetensors'}"
  text = error("--from=ours", "--to=resnet50", given, file)
  check_names(text, "--to", "resnet50")
  check_names(error("--from=ours", "--to=magvit", file), "--input=DIR")
  stage = TINY.config["stage"]
  for group, change, named in (
    (
      "backbone",
      dict(name="causal3d"),
      ["backbone", "name", "causal3d", "cnn3d"],
    ),
    ("backbone", dict(kernel=(1, 3, 3)), ["backbone", "kernel", "(1, 3, 3)"]),
    ("quantizer", dict(code_dim=4), ["quantizer", "code_dim", 4]),
  ):
    other = {**stage, group: {**stage[group], **change}}
    with error_names(ValueError, *named):
      magvit.public({}, other)


def test_lightning_keeps_the_arrays_inside(tmp_path):
  class Tensor:
    dtype = "torch.bfloat16"

    def detach(self):
      return self

    def float(self):
      return self

    def numpy(self):
      return np.ones(2)

  state = {"epoch": 3, "state_dict": {"a": Tensor()}}
  assert reading.arrays(tmp_path / "x.ckpt", state)["a"].tolist() == [1, 1]
