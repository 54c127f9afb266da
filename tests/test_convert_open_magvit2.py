"""Open-MAGVIT2: public arrays in, the same ids and pixels out; and back."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from parity import open_magvit2 as peer

import magvit_jax
from helpers.errors import check_names
from magvit_jax.__main__ import main
from magvit_jax.convert import tokenizer_folder
from magvit_jax.convert.tokenizers import Model, open_magvit2
from magvit_jax.files import weight_file
from magvit_jax.tokenizers import open_magvit2 as backbone

TINY = Model(
  dict(
    name="open_magvit2",
    width=peer.NET["ch"],
    multipliers=peer.NET["ch_mult"],
    blocks=peer.NET["num_res_blocks"],
    strides=((1, 2, 2), (2, 2, 2)),
  ),
  dict(name="lfq", bits=peer.BITS, factors=1, temperature=0.01),
  frames=peer.VIDEO[1],
  size=peer.VIDEO[2:4],
)


@pytest.fixture(scope="module")
def golden():
  with np.load(peer.GOLDEN) as file:
    return dict(file)


@pytest.fixture(scope="module")
def public(golden):
  """The arrays that the reference ran with, by its names."""
  return peer.drawn(json.loads(str(golden["tiny"])))


@pytest.fixture(scope="module")
def converted(public, tmp_path_factory):
  """The folder that `convert` makes of a whole training checkpoint."""
  place = tmp_path_factory.mktemp("open_magvit2")
  state = {name: np.full_like(a, 9.0) for name, a in public.items()}
  for name, array in public.items():
    state["model_ema." + name.replace(".", "")] = array
  one = np.ones(3, np.float32)
  state |= {"model_ema.decay": one, "loss.discriminator.main.0.weight": one}
  weight_file.write(place / "whole.safetensors", state, {})
  return place


@pytest.fixture(scope="module", autouse=True)
def tiny():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(open_magvit2.MODELS, "tiny", TINY)
    yield


def verb(*flags):
  return main(["convert", *map(str, flags)])


def test_ids_and_pixels_are_those_of_the_reference(golden, converted, capsys):
  out = converted / "ours"
  given = f"--input={converted / 'whole.safetensors'}"
  assert verb("--from=open_magvit2", "--model=tiny", given, f"--out={out}") == 0
  assert f"load_tokenizer({str(out)!r})" in capsys.readouterr().out
  tok = magvit_jax.load_tokenizer(out)
  assert (tok.strides, tok.sizes, tok.causal) == ((2, 4, 4), (64,), False)
  ids = tok.encode(peer.clip(peer.VIDEO))
  assert np.abs(golden["latents"]).min() > 1e-4, "no bit may be near its edge"
  np.testing.assert_array_equal(ids[..., 0], golden["ids"])
  recon = np.clip(golden["recon"], -1, 1)
  assert np.std(recon) > 0.1
  np.testing.assert_allclose(tok.decode(ids), recon, atol=1e-4)
  # Two clips of five frames each, one after the other.
  twice = np.concatenate([peer.clip(peer.VIDEO)] * 2, axis=1)
  many = tok.encode(twice)
  np.testing.assert_array_equal(many, np.concatenate([ids, ids], axis=1))
  assert tok.frames(many.shape[1]) == tok.decode(many).shape[1] == 10


def test_a_tokenizer_of_ours_goes_back_as_it_came(converted, public):
  out = converted / "back.safetensors"
  given = f"--input={converted / 'ours'}"
  assert verb("--from=ours", "--to=open_magvit2", given, f"--out={out}") == 0
  arrays, notes = weight_file.read(out)
  assert notes == {"layout": "open_magvit2"} and arrays.keys() == public.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, public[name])


def test_the_published_net_has_the_public_names_and_shapes(golden):
  model = open_magvit2.MODELS["ucf101"]
  found = tokenizer_folder.public_shapes(open_magvit2, model.config["stage"])
  shapes = {name: list(leaf.shape) for name, leaf in found.items()}
  assert shapes == json.loads(str(golden["full"])) and len(shapes) == 283


def test_another_checkpoint_is_refused_by_its_names(converted, public, capsys):
  def error(**changed):
    state = {k: a for k, a in {**public, **changed}.items() if a is not None}
    path = converted / "other.safetensors"
    weight_file.write(path, state, {})
    out = f"--out={converted / 'other'}"
    flags = "--from=open_magvit2", "--model=tiny", f"--input={path}", out
    assert verb(*flags) == 2
    return capsys.readouterr().err

  one = np.ones(3, np.float32)
  name = "encoder.conv_in.conv_1.weight"
  check_names(error(**{name: one}), name, "(3,)", "(32, 3, 3, 3, 3)")
  name = "quant_conv.weight"
  check_names(error(**{name: one}), name, "(3,)")
  gone = "decoder.adaptive.1.gamma.weight"
  check_names(error(**{gone: None}), gone, "(64, 6)")
  assert not (converted / "other").exists()


def test_of_the_first_two_frames_the_second_is_dropped():
  x = jnp.arange(2 * 2.0).reshape(1, 2, 1, 1, 2)
  assert backbone.upsample(x, (2, 1, 1)).ravel().tolist() == [0, 2, 3]
  assert backbone.upsample(x[:, :1], (2, 1, 1)).ravel().tolist() == [0]
