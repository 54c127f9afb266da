"""Mesh sizes and batches that do not fit, and where rows go."""

import jax
import numpy as np
import pytest

from magvit_jax import sharding


def abstract(data, fsdp):
  return jax.sharding.AbstractMesh((data, fsdp, 1, 1), sharding.AXES)


def test_mesh_takes_all_devices_and_is_auto():
  mesh = sharding.make_mesh()
  assert mesh.size == jax.device_count()
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
  "sizes, words",
  [
    (dict(data=-1, fsdp=-1), "at most one of them is -1"),
    (dict(tensor=0), "sizes are positive"),
    (dict(data=7), "multiply to"),
    (dict(fsdp=7), "set mesh.data=-1"),
  ],
)
def test_sizes_that_do_not_fit(sizes, words):
  with pytest.raises(ValueError, match=words):
    sharding.make_mesh(**sizes)


def test_batches_divide_over_data_and_fsdp():
  assert sharding.local_rows(12, abstract(2, 3)) == slice(0, 12)
  with pytest.raises(ValueError, match="eval.batch is 8.*multiple of 6"):
    sharding.local_rows(8, abstract(2, 3), "eval.batch")
  with pytest.raises(ValueError, match="batch is 0"):
    sharding.local_rows(0, abstract(1, 1))


def test_each_process_reads_its_own_rows(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 4)
  seen = []
  for index in range(4):
    monkeypatch.setattr(jax, "process_index", lambda index=index: index)
    seen += range(12)[sharding.local_rows(12, abstract(4, 1))]
  assert seen == list(range(12))


def test_put_batch_keeps_values_and_splits_the_first_axis():
  mesh = sharding.make_mesh()
  batch = {"video": np.arange(24.0, dtype=np.float32).reshape(4, 6)}
  out = sharding.put_batch(batch, mesh)["video"]
  np.testing.assert_array_equal(out, batch["video"])
  assert out.sharding.spec[0] == sharding.BATCH_AXES
