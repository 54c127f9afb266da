"""Meshes and batches that do not fit, where rows go, how names are split."""

import dataclasses
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import optim, registry, sharding, tokenizers, tree_utils
from magvit_jax.stages import TrainState


@dataclasses.dataclass(frozen=True)
class Device:
  """As much of a device as a mesh needs."""

  id: int
  process_index: int = 0
  slice_index: int = 0
  platform: str = "cpu"
  device_kind: str = "cpu"


def fake_mesh(data=1, fsdp=1, context=1, tensor=1, each=64):
  """A mesh of devices that do not exist, `each` of them to a process."""
  shape = (data, fsdp, context, tensor)
  devices = [Device(i, i // each) for i in range(np.prod(shape))]
  return jax.sharding.Mesh(np.array(devices).reshape(shape), sharding.AXES)


def specs(state, **sizes):
  laid = sharding.state_sharding(state, fake_mesh(**sizes))
  return {name: tuple(s.spec) for name, s in tree_utils.named(laid).items()}


def leaf(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_mesh_takes_all_devices_and_is_auto():
  mesh = sharding.make_mesh()
  assert mesh.size == jax.device_count()
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
  "sizes, named",
  [
    (dict(data=-1, fsdp=-1), ["data=-1", "fsdp=-1"]),
    (dict(tensor=0), ["tensor=0"]),
    (dict(data=7), ["data=7", 1]),
    (dict(fsdp=7), ["fsdp=7", "mesh.data=-1"]),
  ],
)
def test_sizes_that_do_not_fit(sizes, named):
  with error_names(ValueError, *named):
    sharding.make_mesh(**sizes)


def test_slices_lie_along_data():
  devices = [Device(i, slice_index=i % 2) for i in range(8)]
  grid = sharding.make_mesh(fsdp=2, devices=devices).devices.reshape(4, 2)
  slices = [[device.slice_index for device in row] for row in grid]
  assert slices == [[0, 0], [0, 0], [1, 1], [1, 1]]
  with error_names(ValueError, "mesh.data", 1, 2):
    sharding.make_mesh(data=1, fsdp=8, devices=devices)


def test_batches_divide_over_data_and_fsdp():
  assert sharding.local_rows(12, fake_mesh(2, 3)) == slice(0, 12)
  with error_names(ValueError, "eval.batch", 8, 6):
    sharding.local_rows(8, fake_mesh(2, 3), "eval.batch")
  with error_names(ValueError, 0, "batch"):
    sharding.local_rows(0, fake_mesh())


def rows_of(monkeypatch, batch, mesh, processes):
  seen = []
  for index in range(processes):
    monkeypatch.setattr(jax, "process_index", lambda index=index: index)
    seen.append(list(range(batch)[sharding.local_rows(batch, mesh)]))
  return seen


def test_each_process_reads_the_rows_its_devices_hold(monkeypatch):
  mesh = fake_mesh(data=4, fsdp=2, each=2)
  seen = rows_of(monkeypatch, 16, mesh, 4)
  assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
  # Here the four devices of an example belong to two processes.
  mesh = fake_mesh(data=2, context=2, tensor=2, each=2)
  assert rows_of(monkeypatch, 4, mesh, 4) == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_processes_cannot_share_a_part_of_their_rows():
  with error_names(ValueError, "'context': 1", "'tensor': 3"):
    sharding.local_rows(4, fake_mesh(data=2, tensor=3, each=2))


def test_put_batch_keeps_values_and_splits_rows_and_heights():
  mesh = sharding.make_mesh()
  video = np.arange(96.0, dtype=np.float32).reshape(4, 1, 4, 2, 3)
  batch = {"video": video, "label": np.arange(4)}
  out = sharding.put_batch(batch, mesh)
  jax.tree.map(np.testing.assert_array_equal, out, batch)
  assert tuple(out["label"].sharding.spec) == (sharding.BATCH_AXES,)
  spec = tuple(out["video"].sharding.spec)
  assert spec == (sharding.BATCH_AXES, None, "context")


def test_a_height_that_context_does_not_divide():
  batch = {"video": np.zeros((2, 1, 9, 8, 3), np.float32)}
  with error_names(ValueError, "mesh.context", 2, "video", 9):
    sharding.put_batch(batch, fake_mesh(context=2))


def test_layers_are_split_where_they_begin_and_summed_where_they_end():
  layers = {
    "qkv": {"kernel": leaf(6, 512, 3, 8, 64)},
    "out": {"kernel": leaf(6, 512, 512)},
    "up": {"kernel": leaf(6, 512, 2048)},
    "down": {"kernel": leaf(6, 2048, 512)},
    "norm": {"scale": leaf(6, 2**15)},
  }
  got = specs({"layers": layers, "table_0": leaf(8193, 512)}, fsdp=4, tensor=8)
  assert got == {
    "layers/qkv/kernel": (None, "fsdp", None, "tensor", None),
    "layers/out/kernel": (None, "tensor", "fsdp"),
    "layers/up/kernel": (None, "fsdp", "tensor"),
    "layers/down/kernel": (None, "tensor", "fsdp"),
    "layers/norm/scale": (None, None),
    "table_0": (None, "fsdp"),
  }


def test_fsdp_moves_and_tensor_stays():
  convolution = {"kernel": leaf(3, 3, 3, 512, 6)}
  assert specs(convolution, fsdp=4)["kernel"][3:] == ("fsdp", None)
  down = {"down": {"kernel": leaf(1024, 18)}}
  got = specs(down, fsdp=4, tensor=2)["down/kernel"]
  assert got == (("tensor", "fsdp"), None)
  with error_names(ValueError, "mesh.tensor", 3, "up/kernel", "(512, 512)"):
    specs({"up": {"kernel": leaf(512, 512)}}, tensor=3)
  with error_names(ValueError, "mesh.fsdp", 5, "kernel", "(512, 512)"):
    specs({"kernel": leaf(512, 512)}, fsdp=5)


def test_a_weight_is_gathered_over_fsdp_and_its_gradient_split_again():
  def product(weight, x):
    return jnp.sum(x @ sharding.gather(weight, "layer/up/kernel"))

  args = jnp.zeros((256, 128)), jnp.zeros((4, 256))
  types = (jax.sharding.AxisType.Auto,) * 4
  mesh = jax.sharding.AbstractMesh(
    (2, 4, 1, 2), sharding.AXES, axis_types=types
  )
  with jax.sharding.use_abstract_mesh(mesh):
    text = str(jax.make_jaxpr(jax.grad(product))(*args))
  found = re.findall(r"spec=P\((.*?)\)", text)
  assert found == ["None, 'tensor'", "None, 'tensor'", "'fsdp', 'tensor'"]
  assert "sharding_constraint" not in str(jax.make_jaxpr(product)(*args))


def test_small_arrays_are_whole_on_every_device():
  assert not any(specs({"kernel": leaf(127, 128)}, fsdp=4)["kernel"])
  assert any(specs({"kernel": leaf(128, 128)}, fsdp=4)["kernel"])


def test_a_leaf_without_a_rule_is_named():
  with error_names(ValueError, "gen/mystery", 2, "sharding.RULES"):
    specs({"gen": {"mystery": leaf(2, 2)}})
  # A rule for more dimensions than the array has is none.
  with error_names(ValueError, "kernel", 1):
    specs({"kernel": leaf(2)})


def test_moments_averages_and_frozen_weights_lie_as_the_parameters():
  params = {"gen": {"up": {"kernel": leaf(256, 256), "bias": leaf(256)}}}
  tx = optim.make(10, lr=1e-3)
  state = TrainState(
    step=leaf(),
    params=params,
    opt={"gen": jax.eval_shape(tx.init, params["gen"])},
    ema=params["gen"],
    frozen={"tokenizer": params["gen"]},
    extra={"bad": leaf(), "counts": (leaf(2**16),)},
  )
  got = specs(state, fsdp=2, tensor=4)
  kernels = [name for name in got if name.endswith("up/kernel")]
  assert {name.split("/")[0] for name in kernels} == {
    "params",
    "opt",
    "ema",
    "frozen",
  }
  assert len(kernels) == 5  # of the optimizer there are two moments
  assert {got[name] for name in kernels} == {("fsdp", "tensor")}
  others = [axes for name, axes in got.items() if name not in kernels]
  assert not any(any(axes) for axes in others)


INPUTS = {
  "quantizers": lambda module: (jnp.zeros((1, 3, 4, 5, module.dim)),),
  "discriminators": lambda module: (jnp.zeros((1, 4, 16, 16, 3)),),
  "transformers": lambda module: (
    jnp.zeros((1, 2, module.width)),
    np.zeros((2, 3)),
  ),
}


@pytest.mark.parametrize(
  "family, name",
  [(family, name) for family in INPUTS for name in registry.names(family)],
)
def test_every_leaf_of_a_component_has_a_rule(family, name):
  tiny = importlib.import_module(f"magvit_jax.{family}.{name}").TINY
  module = registry.build(family, {"name": name, **tiny})
  args = INPUTS[family](module)
  variables = jax.eval_shape(module.init, jax.random.key(0), *args)
  sharding.state_sharding(variables, fake_mesh(fsdp=2, tensor=2))


@pytest.mark.parametrize("name", registry.names("tokenizers"))
def test_every_leaf_of_a_backbone_has_a_rule(name):
  tiny = importlib.import_module(f"magvit_jax.tokenizers.{name}").TINY
  module = registry.build("tokenizers", {"name": name, **tiny})
  st, sh, sw = module.stride
  video = jnp.zeros((1, st + tokenizers.alone(module), sh, sw, 3))

  def both(module, video):
    return module.decode(module.encode(video))

  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), video, method=both)
  )
  sharding.state_sharding(variables, fake_mesh(fsdp=2, tensor=2))


def test_the_table_says_what_a_device_holds():
  state = {
    "up": {"kernel": leaf(1024, 1024)},
    "other": {"kernel": leaf(512, 512)},
    "bias": leaf(16),
  }
  text = sharding.table(sharding.lay(state, fake_mesh(fsdp=2, tensor=4)))
  lines = [line.split("  ") for line in text.splitlines()]
  cells = [[c.strip() for c in line if c.strip()] for line in lines]
  assert cells[0][0] == "mesh data=1, fsdp=2, context=1, tensor=4: the state"
  assert ["/(gate|up)/kernel$", "fsdp tensor", "1", "4.00", "0.50"] in cells
  assert ["/kernel$", "- fsdp", "1", "1.00", "0.50"] in cells
  assert ["total", "3", "5.00", "1.00"] in cells
