"""A checkpoint of any mesh and number of processes comes back on any other."""

import json

import pytest

from helpers import mesh_restore, two_processes
from helpers.errors import check_names
from magvit_jax import sharding, tree_utils
from magvit_jax.checkpoints import checksum

ACROSS = [f"{a} to {b}" for a, b in mesh_restore.READ]


@pytest.fixture(scope="module", autouse=True)
def small():
  """The arrays are tiny, so that nothing of them would be split."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "SMALL", 16)
    yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """What mesh_restore.py writes; two processes, so that JAX starts twice."""
  path = tmp_path_factory.mktemp("restore")
  mesh_restore.write(path / "one", sharding.make_mesh(data=1))
  running = two_processes.start("both", path, module="helpers.mesh_restore")
  codes = two_processes.end(running, 400)
  texts = [(path / f"both-{i}.txt").read_text()[-3000:] for i in (0, 1)]
  assert codes == [0, 0], "\n".join(texts)
  return path


@pytest.fixture(scope="module")
def told(folder):
  """By process: the results of its cases."""
  return [json.loads((folder / f"{i}.json").read_text()) for i in (0, 1)]


@pytest.mark.parametrize("case", [*ACROSS, "one to 2x4"])
def test_two_processes_read_what_any_mesh_wrote(told, case):
  assert [own[case] for own in told] == [[1, []]] * 2


def test_two_processes_read_frozen_arrays_and_weights_alone(told):
  assert [own["parts"] for own in told] == [[], []]


@pytest.mark.parametrize("mesh", ["2x4", "data"])
def test_one_cpu_reads_what_two_processes_wrote(folder, mesh):
  one = sharding.make_mesh(data=1)
  assert mesh_restore.read(folder / mesh, one) == (1, [])
  assert mesh_restore.read_parts(folder / mesh, one) == []


def test_weights_were_split_over_the_processes(folder):
  """Otherwise nothing above would show anything."""
  parts = folder / "fsdp" / "checkpoints" / "1" / "params"
  sizes = [
    sum(p.stat().st_size for p in (parts / f"ocdbt.process_{i}").rglob("*"))
    for i in (0, 1)
  ]
  assert min(sizes) > 2048 and max(sizes) < 2 * min(sizes)


def test_processes_fall_back_together(told):
  for first, second, said in (own["damaged"] for own in told):
    assert first == [2, []] and second == [1, []]
    check_names(said[0], "checkpoints/3", "DamagedError: params/")
    check_names(said[2], "checkpoints/2", "DamagedError: alone")
    check_names(said[3], 1)


def test_checksums_of_split_arrays_are_those_of_whole_ones(told):
  params = mesh_restore.state(1).params
  whole = [checksum.bits(params), checksum.sha256(tree_utils.named(params))]
  assert [own["sums"] for own in told] == [whole] * 2
