"""Cosmos-Tokenizer: its arrays in, the same ids and pixels out; and back."""

import pickle
import zipfile

import numpy as np
import pytest
from parity import cosmos as peer

import magvit_jax
from helpers.convert_checks import (
  check_both_ways,
  check_numbers,
  check_refused,
  check_shapes,
)
from helpers.errors import error_names
from magvit_jax.__main__ import main
from magvit_jax.convert import reading, tokenizer_folder, torchscript
from magvit_jax.convert.tokenizers import cosmos
from magvit_jax.tokenizers.cosmos import Backbone

# Arrays of convolutions that the public nets hold and do not use.
UNUSED = {"DV4x8x8": 16, "DV8x8x8": 12, "DV8x16x16": 4}
names = pytest.mark.parametrize("name", UNUSED)


@pytest.mark.parametrize("name", peer.CLIPS)
def test_latents_ids_and_pixels_are_those_of_the_reference(name):
  check_numbers(cosmos, peer, name)


@names
def test_names_go_both_ways(name):
  model = peer.model(name)
  unused = cosmos.unused(model.config["stage"])
  assert len(unused) == UNUSED[name]
  check_both_ways(cosmos, model, unused)


@names
def test_published_nets_have_the_public_names_and_shapes(name):
  check_shapes(cosmos, peer, name)


def test_files_become_a_folder_that_opens(tmp_path, monkeypatch, capsys):
  tiny = peer.model("DV4x8x8")
  stage = tiny.config["stage"]
  monkeypatch.setitem(cosmos.MODELS, "tiny", tiny)
  state = peer.drawn(cosmos, stage)
  arrays = cosmos.convert(state, stage)
  state |= {"quantizer._basis": np.ones(6, np.int32)}
  nets = "encoder.", "quant_conv."
  parts = {
    "encoder": {k: a for k, a in state.items() if k.startswith(nets)},
    "decoder": {k: a for k, a in state.items() if not k.startswith(nets)},
  }
  for part, own in parts.items():
    np.savez(tmp_path / f"{part}.npz", **own)
  out = tmp_path / "ours"
  flags = [f"--input={tmp_path / part}.npz" for part in parts]
  flags += ["--from=cosmos", "--model=tiny", f"--out={out}"]
  assert main(["convert", *flags]) == 0
  assert f"load_tokenizer({str(out)!r})" in capsys.readouterr().out
  tok = magvit_jax.load_tokenizer(out)
  assert (tok.strides, tok.sizes, tok.causal) == ((4, 8, 8), (64000,), True)
  found = tokenizer_folder.read(out)[1]
  assert found.keys() == arrays.keys()
  for key, array in arrays.items():
    np.testing.assert_array_equal(found[key], array)


def test_other_arrays_are_refused_by_their_names():
  check_refused(cosmos, peer.model("DV4x8x8"))


@pytest.mark.parametrize(
  "changes, named",
  [
    (dict(downs=((1, 2, 2), (2, 1, 1))), ["downs", "(2, 2, 2)"]),
    (dict(ups=((2, 2, 2), (4, 1, 1))), ["(4, 1, 1)"]),
    (dict(patch=3), ["patch", 3]),
    (dict(window=0), ["window", 0]),
    (dict(remat="all"), ["remat", "all", "cosmos"]),
  ],
)
def test_wrong_arguments_name_value_and_cure(changes, named):
  with error_names(ValueError, *named):
    Backbone(6, **changes)


def test_tensors_of_an_archive_are_read_without_torch():
  state = peer.drawn(cosmos, peer.model("DV8x16x16").config["stage"])
  found = reading.read(peer.GOLDEN / "tiny.jit")
  assert found.keys() == {k for k in state if k.startswith("post_quant_conv.")}
  for name, array in found.items():
    # They were saved in bfloat16.
    np.testing.assert_allclose(array, state[name], rtol=2**-8)
    assert array.dtype == np.float32 and array.shape == state[name].shape


def archive(path, pickled, storage=bytes(16)):
  """A file as torch.jit.save lays it, of this data.pkl."""
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("net/data.pkl", pickled)
    file.writestr("net/data/0", storage)
  return path


def tensor(size, stride, offset=0):
  """The pickle of a module with one tensor of four floats."""
  kind = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
  shape = f"I{offset}\n(I{size}\nt(I{stride}\ntI00\n(dt".encode()
  made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + kind + shape + b"R"
  return b"c__torch__.net\nNet\n)\x81}(S'a'\n" + made + b"ub."


def test_an_archive_runs_nothing_and_ends_where_it_ends(tmp_path):
  path = tmp_path / "net.jit"
  values = np.arange(4, dtype=np.float32).tobytes()
  archive(path, tensor(2, 2, offset=1), values)
  assert torchscript.read(path)["a"].tolist() == [1, 3]
  for size, stride in ((5, 1), (2, 4), (2, -1)):
    archive(path, tensor(size, stride))
    with error_names(ValueError, path):
      torchscript.read(path)
  archive(path, tensor(4, 1), bytes(12))
  with error_names(ValueError, path, 0):
    torchscript.read(path)
  archive(path, pickle.dumps({"a": print}))
  with error_names(ValueError, path, "builtins.print"):
    torchscript.read(path)
  path.write_bytes((peer.GOLDEN / "tiny.jit").read_bytes()[:-90])
  with error_names(ValueError, path):
    torchscript.read(path)
  with error_names(FileNotFoundError, tmp_path / "none.jit"):
    torchscript.read(tmp_path / "none.jit")
