"""Meshes and shardings: how a batch and a state lie on the devices.

`RULES` says on which axes of the mesh each array of a state is split, by its
name. Models know nothing of it: XLA derives from the arguments of a program
what each device computes and sends.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from magvit_jax import tree_utils
from magvit_jax.types import Array, PyTree

AXES = ("data", "fsdp", "context", "tensor")
BATCH_AXES = ("data", "fsdp")

# What is found in the name of an array, with a / before it, and the axes of its
# LAST dimensions; those before (stacked layers, the window of a kernel) are
# never split. The first rule that is found, and has no more dimensions than the
# array, counts. Moments, averages and frozen weights end in the names of the
# parameters they belong to. `data` stands nowhere: it copies.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r"/extra/", ()),
  (r"/(bias|scale)(_\d+)?$", ()),
  (r"/(plane|line)$", ()),  # depthwise filters
  (r"/(task|position\w*)$", ()),
  # Heads and hidden channels are split where a layer begins, and summed where
  # it ends (Megatron-LM, arXiv 1909.08053).
  (r"/qkv/kernel$", ("fsdp", None, "tensor", None)),
  (r"/qkv/part$", ("fsdp", "tensor")),  # one of the three, as it is used
  (r"/(gate|up)/kernel$", ("fsdp", "tensor")),
  (r"/(out|down)/kernel$", ("tensor", "fsdp")),
  # Tables by their width: the number of rows is often odd.
  (r"/(table(_\d+)?|label|embedding)$", (None, "fsdp")),
  (r"/(\w+_codes|buffer_\w+|inward|outward)$", ()),
  (r"/kernel$", (None, "fsdp")),
)

# Numbers in the largest array that is never split: sending its parts around
# costs more than the 64 KiB it takes.
SMALL = 2**14


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  context: int = 1,
  tensor: int = 1,
  *,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """The mesh of all devices; one of the four sizes may be -1 (what is left).

  Several slices lie along `data`: gradients alone cross the slow network.

  Args:
    data: copies of the state; the batch is split over them.
    fsdp: parts of the state; the batch is split over them too.
    context: parts of an example.
    tensor: parts of a layer.
    devices: all that JAX sees, or those of a topology to plan for.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or `data`
      is not a multiple of the slices.
  """
  sizes = [data, fsdp, context, tensor]
  found = jax.devices() if devices is None else list(devices)
  devices = len(found)
  text = ", ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise ValueError(
      f"mesh ({text}): sizes are positive, and at most one of them is -1"
    )
  known = math.prod(s for s in sizes if s != -1)
  if devices % known or (-1 not in sizes and known != devices):
    raise ValueError(
      f"mesh ({text}) does not fit {devices} device(s): the sizes must "
      f"multiply to {devices}; set mesh.data=-1 to take what is left"
    )
  sizes = [devices // known if s == -1 else s for s in sizes]
  slices = len({getattr(d, "slice_index", None) for d in found})
  # Linen fails under Explicit axes, which are jax's default.
  auto = (AxisType.Auto,) * len(AXES)
  if slices == 1:
    return jax.make_mesh(sizes, AXES, axis_types=auto, devices=found)
  if sizes[0] % slices:
    raise ValueError(
      f"mesh.data is {sizes[0]}; it must be a multiple of the {slices} slices"
    )
  grid = mesh_utils.create_hybrid_device_mesh(
    (sizes[0] // slices, *sizes[1:]), (slices, 1, 1, 1), found
  )
  return Mesh(grid, AXES, axis_types=auto)


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def state_sharding(state: PyTree, mesh: Mesh) -> PyTree:
  """How the leaves of a state are split over the mesh, by `RULES`.

  `fsdp` only says where weights are stored, so where it does not divide its
  dimension it moves to the largest other one of the rule that it divides, at
  last one that `tensor` splits too; `tensor` says how a layer is computed, and
  stays. Arrays of fewer than `SMALL` numbers are whole on every device.

  Args:
    state: arrays or ShapeDtypeStructs; a TrainState, or a part of one.
    mesh: of `make_mesh`.

  Returns:
    The same tree of NamedShardings.

  Raises:
    ValueError: a leaf without a rule, or with dimensions that do not divide.
  """

  def leaf(path, x):
    name = tree_utils.path_name(path)
    return NamedSharding(mesh, _spec(name, x.shape, mesh))

  return jax.tree_util.tree_map_with_path(leaf, state)


def lay(state: PyTree, mesh: Mesh) -> PyTree:
  """Abstract leaves with the shardings of `state_sharding`."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    state_sharding(state, mesh),
  )


def find_rule(name: str, ndim: int) -> tuple[str, tuple[str | None, ...]]:
  """The rule of RULES for a leaf.

  Raises:
    ValueError: there is none.
  """
  for rule in RULES:
    if len(rule[1]) <= ndim and re.search(rule[0], f"/{name}"):
      return rule
  raise ValueError(
    f"sharding: no rule fits {name!r} of {ndim} dimensions. Each array of a "
    "state needs one: add its name to sharding.RULES, with () if every device "
    "is to hold all of it"
  )


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  if not shape:
    return PartitionSpec()
  _, axes = find_rule(name, len(shape))
  if math.prod(shape) < SMALL:
    return PartitionSpec()
  split: dict[int, tuple[str, ...]] = {}
  first = len(shape) - len(axes)
  # `tensor` has its place, so `fsdp` chooses after it.
  for axis in ("tensor", "fsdp"):
    if axis not in axes or mesh.shape[axis] == 1:
      continue
    own = first + axes.index(axis)
    others = range(first, len(shape)) if axis == "fsdp" else ()
    others = sorted(others, key=lambda i: (i in split, -shape[i]))
    for i in (own, *others):
      together = (*split.get(i, ()), axis)
      if shape[i] % math.prod(mesh.shape[a] for a in together) == 0:
        split[i] = together
        break
    else:
      raise ValueError(_misfit(name, shape, axis, mesh.shape[axis]))
  return PartitionSpec(*(split.get(i) for i in range(len(shape))))


def _misfit(name: str, shape: tuple[int, ...], axis: str, size: int) -> str:
  return (
    f"sharding: mesh.{axis} is {size}, which does not divide {name} "
    f"{shape} as sharding.RULES asks; choose a mesh.{axis} that divides it, "
    "or another width of the net"
  )


def batch_sharding(mesh: Mesh, ndim: int = 1) -> NamedSharding:
  """Rows are split over `data` and `fsdp`, heights over `context`.

  Arrays of 5 dimensions, videos [b t h w c] and ids [b T H W f], have a height.
  """
  height = (None, "context") if ndim == 5 else ()
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES, *height))


def local_rows(batch: int, mesh: Mesh, name: str = "batch") -> slice:
  """The rows of a global batch that this process reads.

  Processes whose devices hold parts of the same examples read the same rows.

  Raises:
    ValueError: `batch` does not divide over the devices.
  """
  parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if batch < 1 or batch % parts:
    raise ValueError(
      f"{name} is {batch}; it must be a positive multiple of {parts} (mesh "
      "data x fsdp)"
    )
  group, groups = _row_group(mesh)
  rows = batch // groups
  return slice(group * rows, (group + 1) * rows)


def _row_group(mesh: Mesh) -> tuple[int, int]:
  """Which rows this process reads: (number of its group, groups)."""
  parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  owners = np.array([d.process_index for d in mesh.devices.flat])
  owners = owners.reshape(parts, -1)
  held = {
    process: tuple(np.flatnonzero((owners == process).any(axis=1)))
    for process in np.unique(owners)
  }
  groups = sorted(set(held.values()))
  if sum(map(len, groups)) != parts or len(set(map(len, groups))) > 1:
    raise ValueError(
      f"mesh {dict(mesh.shape)}: processes share some of their examples and "
      "not others; choose context x tensor so that it divides the devices of "
      "a process, or is a multiple of them"
    )
  return groups.index(held[jax.process_index()]), len(groups)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
  """This process's rows to global arrays, as `batch_sharding` says.

  Raises:
    ValueError: `context` does not divide a height.
  """
  groups = _row_group(mesh)[1]
  return {
    name: _put(name, np.asarray(rows), mesh, groups)
    for name, rows in batch.items()
  }


def _put(name: str, rows: np.ndarray, mesh: Mesh, groups: int) -> Array:
  parts = mesh.shape["context"]
  if rows.ndim == 5 and rows.shape[2] % parts:
    raise ValueError(
      f"mesh.context is {parts}, and the height of {name!r} {rows.shape} is "
      f"{rows.shape[2]}; choose a context that divides it"
    )
  return jax.make_array_from_process_local_data(
    batch_sharding(mesh, rows.ndim),
    rows,
    (rows.shape[0] * groups, *rows.shape[1:]),
  )


def split_tokens(x: Array) -> Array:
  """Splits activations [b n d] by example and by token, under `computing`.

  Without it XLA may follow the weights, and compute examples twice.
  """
  return _constrain(x, BATCH_AXES, "context")


def _constrain(x: PyTree, *axes: Any) -> PyTree:
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def own_heads(heads: int) -> int:
  """Heads that a device computes of a layer, under `computing`.

  0 where no mesh is known, or they do not divide.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or heads % mesh.shape["tensor"]:
    return 0
  return heads // mesh.shape["tensor"]


def by_head(
  function: Callable[..., Array], heads: Sequence[Array], whole: PyTree
) -> Array:
  """function(*heads, whole), each device for its own examples and heads.

  Args:
    function: gives an array [b n heads d].
    heads: arrays [b n heads d], of all tokens.
    whole: what all devices need all of.
  """
  spec = PartitionSpec(BATCH_AXES, None, "tensor")
  split = jax.shard_map(
    lambda heads, whole: function(*heads, whole),
    in_specs=(spec, PartitionSpec()),
    out_specs=spec,
    check_vma=False,
  )
  return split(tuple(heads), whole)


def gather(weight: Array, name: str) -> Array:
  """A weight of all parts of `fsdp`, under `computing`; `tensor` stays split.

  Left to itself XLA would keep the parts where they are and send partial sums
  of activations around. Gradients are added up, and each device keeps its part.
  `weight` is of the dtype to send, and `name` one of RULES.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.shape["fsdp"] == 1:
    return weight
  own = _spec(name, weight.shape, mesh)
  whole = PartitionSpec(*map(_without_fsdp, own))
  constrain = jax.lax.with_sharding_constraint

  @jax.custom_vjp
  def gathered(x):
    return constrain(x, whole)

  def back(_, grad):
    # In one step XLA would make a loop of small products and sends of it.
    return (constrain(constrain(grad, whole), own),)

  gathered.defvjp(lambda x: (gathered(x), None), back)
  return gathered(weight)


def whole(weights: PyTree) -> PyTree:
  """Weights of a frozen net on every device, under `computing`.

  Split as they are stored they would make XLA send activations around.
  """
  return _constrain(weights)


def _without_fsdp(axes: tuple[str, ...] | str | None) -> Any:
  if isinstance(axes, str):
    return None if axes == "fsdp" else axes
  return tuple(a for a in axes or () if a != "fsdp") or None


def computing(mesh: Mesh) -> Any:
  """Context in which what runs on a mesh is traced."""
  return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def table(state: PyTree) -> str:
  """Text: how the leaves of a laid-out state are split, by rule and axes."""
  leaves = tree_utils.named(state)
  groups: dict[tuple[str, str], list[Any]] = {}
  for name, leaf in leaves.items():
    groups.setdefault(_group(name, leaf), []).append(leaf)
  rows = [("names with", "last dimensions", "arrays", "MiB", "a device")]
  for (pattern, axes), found in groups.items():
    rows.append((pattern, axes, f"{len(found)}", *_mebibytes(found)))
  total = list(leaves.values())
  rows.append(("total", "", f"{len(total)}", *_mebibytes(total)))
  mesh = total[0].sharding.mesh
  sizes = ", ".join(f"{axis}={mesh.shape[axis]}" for axis in AXES)
  widths = [max(len(row[i]) for row in rows) for i in range(5)]
  lines = [
    "  ".join(
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  ]
  return "\n".join([f"mesh {sizes}: the state", *lines])


def _group(name: str, leaf: Any) -> tuple[str, str]:
  spec = leaf.sharding.spec
  if not any(spec):
    return "all others", "whole"
  pattern, axes = find_rule(name, len(leaf.shape))
  last = tuple(spec)[len(leaf.shape) - len(axes) :]
  texts = ("+".join((a,) if isinstance(a, str) else a or "-") for a in last)
  return pattern, " ".join(texts)


def _mebibytes(leaves: list[Any]) -> tuple[str, str]:
  """MiB of arrays, and of what a device holds of them."""

  def total(shape_of):
    sizes = (math.prod(shape_of(x)) * x.dtype.itemsize for x in leaves)
    return f"{sum(sizes) / 2**20:.2f}"

  whole = total(lambda x: x.shape)
  return whole, total(lambda x: x.sharding.shard_shape(x.shape))
