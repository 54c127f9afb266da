"""`convert`: public weights in, a checked file of our names out."""

import json
import pickle
import sys
import types

import numpy as np
import pytest
from parity import perceptual as peer

from helpers.errors import check_names, error_names
from magvit_jax import registry, tree_utils
from magvit_jax.__main__ import main
from magvit_jax.convert.nets import vgg16_lpips
from magvit_jax.convert.public_file import UNKNOWN
from magvit_jax.files import weight_file

FAMILIES = ("convert.nets", "convert.tokenizers")
SOURCES = {
  name: registry.load_module(family, name)
  for family in FAMILIES
  for name in registry.names(family)
}


class Tensor:
  """What torch.load gives, as far as it is used."""

  def __init__(self, array):
    self.array = array
    self.dtype = f"torch.{array.dtype}"

  def detach(self):
    return self

  def numpy(self):
    return self.array


@pytest.fixture
def torch(monkeypatch):
  """A stand-in for torch that only opens what holds no code.

  The real one is an extra; tests/parity/perceptual.py runs it.
  """

  def load(path, map_location, weights_only):
    assert map_location == "cpu" and weights_only is True
    if path.read_bytes()[:1] == b"\x80":
      raise pickle.UnpicklingError("Unsupported global: os.system")
    with np.load(path) as file:
      return {name: Tensor(array) for name, array in file.items()}

  module = types.ModuleType("torch")
  module.load = load
  monkeypatch.setitem(sys.modules, "torch", module)


def public(name):
  """The arrays of zeros of a public source."""
  with np.load(peer.GOLDEN) as file:
    shapes = json.loads(str(file["shapes"]))[name]
  return {k: np.zeros(s, np.float32) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """The two files of LPIPS, as arrays that torch's stand-in reads."""
  folder = tmp_path_factory.mktemp("public")
  state = public("vgg16_lpips")
  linear = {k: v + 1 for k, v in state.items() if k.startswith("lin")}
  net = {k: v for k, v in state.items() if k not in linear}
  net["features.0.bias"][:] = np.arange(64)
  net["classifier.0.weight"] = np.zeros((3, 3))
  for name, arrays in (("vgg16-397923af", net), ("vgg", linear)):
    with (folder / f"{name}.pth").open("wb") as file:
      np.savez(file, **arrays)
  return folder / "vgg16-397923af.pth", folder / "vgg.pth"


def verb(*flags):
  return main(["convert", "--from=vgg16_lpips", *map(str, flags)])


def test_two_public_files_become_one_of_ours(torch, files, tmp_path, capsys):
  out = tmp_path / "lpips.safetensors"
  flags = [f"--input={path}" for path in files]
  assert verb(*flags, f"--out={out}") == 0
  said = capsys.readouterr().out
  check_names(said, "397923af", f"perceptual.weights={out}", 14716160)
  arrays, notes = weight_file.read(out)
  assert notes == {"net": "vgg16"}
  assert arrays.keys() == tree_utils.named(vgg16_lpips.shapes()).keys()
  np.testing.assert_array_equal(arrays["net/conv1_1/bias"], np.arange(64))
  assert arrays["linear/relu5_3/scale"].shape == (512,)
  before = out.read_bytes()
  assert verb(*flags, f"--out={out}") == 2
  check_names(capsys.readouterr().err, out)
  assert out.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_pickled_code_is_refused(torch, tmp_path, capsys):
  path, out = tmp_path / "evil.pth", tmp_path / "out.safetensors"
  path.write_bytes(pickle.dumps({"a": print}))
  assert verb(f"--input={path}", f"--out={out}") == 2
  check_names(capsys.readouterr().err, path)
  assert not out.exists()


def test_without_torch_the_extra_is_named(monkeypatch, files, tmp_path, capsys):
  monkeypatch.setitem(sys.modules, "torch", None)
  assert verb(f"--input={files[0]}", f"--out={tmp_path}/o.safetensors") == 2
  check_names(capsys.readouterr().err, "torch", "[convert]")


def test_wrong_inputs_are_named(torch, files, tmp_path, capsys):
  def error(*flags):
    assert verb(*flags) == 2
    return capsys.readouterr().err

  out = f"--out={tmp_path}/o.safetensors"
  one, linear = (f"--input={path}" for path in files)
  check_names(error(one, out), 5, "lin0.model.1.weight")
  check_names(error(one, one, out), files[0], "classifier.0.weight")
  check_names(error("--input=none.pth", out), "--input", "none.pth")
  check_names(error(one, "--out=o.npz"), "--out", "o.npz", ".safetensors")
  missing = "--out=/nowhere/o.safetensors"
  check_names(error(one, missing), "/nowhere/o.safetensors")
  other = tmp_path / "other.npz"
  np.savez(other, **{"net/head/bias": np.zeros(3)})
  found = error(one, linear, f"--input={other}", out)
  check_names(found, 1, "net/head/bias")
  assert main(["convert", "--from=vgg", out]) == 2
  check_names(capsys.readouterr().err, "--from", "vgg", "vgg16_lpips")
  assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_says_what_it_converts(name, capsys):
  assert main(["convert", f"--from={name}"]) == 0
  said = capsys.readouterr().out
  for file, about in SOURCES[name].FILES.items():
    assert file in said and about.url in said and about.sha256 in said
    assert about.sha256 == UNKNOWN or len(about.sha256) >= 8
  assert said.startswith(name)


def test_other_files_of_weights_are_refused(tmp_path):
  whole = tmp_path / "w.safetensors"
  arrays = {"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)}
  weight_file.write(whole, arrays, {"net": "x"})
  half = tmp_path / "half.safetensors"
  half.write_bytes(whole.read_bytes()[:-4])
  empty = tmp_path / "empty.npz"
  empty.write_bytes(b"PK")
  for path in (half, empty):
    with error_names(ValueError, path):
      weight_file.read(path)
  with error_names(ValueError, tmp_path / "w.pth", ".safetensors", ".npz"):
    weight_file.read(tmp_path / "w.pth")
  found = weight_file.read(whole)[0]
  for wanted, named in (
    (dict(a=np.ones((3, 2)), c=np.ones(1)), (3, "a", "(2, 3)", "(3, 2)")),
    (arrays | {"c": np.ones(1), "d": np.ones(1)}, (2, "c", "(1,)")),
  ):
    with error_names(ValueError, "weights", *named):
      weight_file.fit(found, wanted, "weights")
  for bad, named in ((np.inf, "a"), (3, "int64")):
    with error_names(ValueError, "weights", "a", named):
      weight_file.fit({"a": np.asarray(bad)}, {"a": np.zeros(())}, "weights")


def test_a_name_is_that_of_one_source():
  assert len(SOURCES) == sum(len(registry.names(f)) for f in FAMILIES)
