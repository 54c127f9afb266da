"""The manifest of a checkpoint: what it sees, and how it names it."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorstore as ts
from orbax.checkpoint import v1 as ocp

from helpers.errors import check_names
from magvit_jax.checkpoints import manifest


@pytest.fixture(scope="module", autouse=True)
def piece():
  """Arrays of some KiB are longer than a piece."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(manifest, "PIECE", 2**12)
    yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Two items, of two arrays and of one."""
  folder = tmp_path_factory.mktemp("saved") / "step"
  a, b = np.random.default_rng(0).random((2, 64, 256), np.float32)
  items = {"params": {"net": {"a": a, "b": b}}, "other": {"c": a}}
  ocp.save_checkpointables(folder, items)
  manifest.write(folder)
  return folder


@pytest.fixture
def copy(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "copy")


def files(folder, item="params"):
  """Files of an item, the largest first."""
  found = [p for p in (folder / item).rglob("*") if p.is_file()]
  return sorted(found, key=lambda p: -p.stat().st_size)


def flip(path: pathlib.Path, at: int):
  with path.open("r+b") as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))


def fault(folder, items=None):
  with pytest.raises(manifest.DamagedError) as error:
    manifest.check(folder, items)
  return str(error.value)


def test_every_file_of_every_item_is_listed_and_whole(saved):
  listed = json.loads((saved / manifest.NAME).read_text())["files"]
  there = [*files(saved), *files(saved, "other")]
  assert set(listed) == {p.relative_to(saved).as_posix() for p in there}
  assert all(listed[k]["size"] == (saved / k).stat().st_size for k in listed)
  manifest.check(saved)


def test_a_flipped_bit_in_any_file_is_named(copy):
  for path in files(copy):
    name, middle = path.relative_to(copy), path.stat().st_size // 2
    flip(path, middle)
    assert fault(copy).startswith(f"{name} ")
    manifest.check(copy, ["other"])
    flip(path, middle)
  manifest.check(copy)


def test_another_size_and_a_lost_file_are_named(copy):
  path = files(copy)[0]
  name, size = path.relative_to(copy), path.stat().st_size
  with path.open("ab") as file:
    file.write(b"x")
  text = fault(copy)
  assert text.startswith(f"{name} ") and "(of net/" in text
  check_names(text, size + 1, size)
  path.unlink()
  check_names(fault(copy, ["params"]), name)


def test_a_file_that_cannot_be_read_is_damage(copy, monkeypatch):
  def broken(path):
    raise OSError(5, "Input/output error", str(path))

  monkeypatch.setattr(manifest, "_pieces", broken)
  check_names(fault(copy), "Input/output error")


def test_the_array_and_the_piece_are_named(copy):
  # Orbax puts both into one file, or each into its own.
  large = [p for p in files(copy) if p.stat().st_size > 2**14] * 2
  names = []
  for path, part in zip(large[:2], (1, 3), strict=True):
    at = part * path.stat().st_size // 4
    flip(path, at)
    text = fault(copy)
    names.append(text[text.index(" (of ") :])
    first, last = (int(n.replace(",", "")) for n in text.split()[-5:-2:2])
    assert first <= at < last <= first + 2**12
    flip(path, at)
  assert sorted(names) == [" (of net/a)", " (of net/b)"]


def test_a_damaged_index_or_manifest_is_said_all_the_same(copy):
  for path in files(copy):
    if "ocdbt.process" not in str(path):
      path.write_bytes(bytes(path.stat().st_size))
  index = [p.relative_to(copy).as_posix() for p in files(copy)]
  assert fault(copy, ["params"]).split()[0] in index
  flip(copy / manifest.NAME, 100)
  assert fault(copy).startswith("manifest.json ")
  (copy / manifest.NAME).unlink()
  manifest.check(copy)


def test_the_index_is_read_at_any_depth(tmp_path):
  small = {"max_inline_value_bytes": 1, "max_decoded_node_bytes": 300}
  base = f"file://{tmp_path}/"
  store = ts.KvStore.open(
    {"driver": "ocdbt", "config": small, "base": base}
  ).result()
  names = [f"net.layer{i}" for i in range(40)]
  for name in names:
    store[f"{name}/c/0"] = name.encode() * 9
  found = list(manifest._index(tmp_path))
  assert {array for array, *_ in found} == {n.replace(".", "/") for n in names}
  for array, file, start, stop in found:
    data = (tmp_path / file).read_bytes()[start:stop]
    assert data == array.replace("/", ".").encode() * 9
