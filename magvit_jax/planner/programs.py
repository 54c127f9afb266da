"""The programs of a config with abstract arguments: nothing is computed.

The stage is built as the loop builds it; its state comes from `eval_shape`,
its batch from the shape of the clips in the config. No data is read.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from magvit_jax import messages, registry, sharding, tokenizers
from magvit_jax.checkpoints import frozen_params
from magvit_jax.files import paths, workdirs
from magvit_jax.hardware.chips import Topology
from magvit_jax.nn import target_platform
from magvit_jax.stages import Stage, TrainState, _generator_model
from magvit_jax.tasks import tables as task_tables
from magvit_jax.training import loop
from magvit_jax.types import PyTree

# Labels in a program whose data says how many there are; only the size of one
# embedding depends on it.
CLASSES = 1000
PLATFORM = "tpu"  # that all plans are for
PROGRAMS = ("train", "predict", "encode", "decode", "sample")


@dataclasses.dataclass(frozen=True)
class Program:
  """Something to compile.

  Attributes:
    name: 'train' or a key of Stage.programs.
    make: () -> a new jitted function, traced from scratch.
    args: its arguments, ShapeDtypeStructs with shardings.
    batch: examples of a call, on all devices.
    steps: calls of a whole run; 0 where it is not a training step.
    state: abstract TrainState.
  """

  name: str
  make: Callable[[], Any]
  args: tuple[PyTree, ...]
  batch: int
  steps: int
  state: TrainState

  def trace(self) -> Any:
    """A new `jax.stages.Traced`, as the platform of a TPU would make it."""
    with target_platform.tracing_for(PLATFORM):
      return self.make().trace(*self.args)


def make(cfg: Any, name: str, mesh: jax.sharding.Mesh) -> Program:
  """The program `name` of a config on a mesh.

  Args:
    cfg: resolved by `resolve`.
    name: one of PROGRAMS.
    mesh: of the devices to plan for.

  Raises:
    KeyError: the stage has no such program.
    ValueError: a batch that the mesh does not divide.
  """
  train = name == "train"
  batch = cfg.batch if name != "predict" else cfg.eval.batch
  sharding.local_rows(batch, mesh, "batch" if train else f"batch of {name}")
  with target_platform.tracing_for(PLATFORM):
    stage = build_stage(cfg)
    known = ("train", *stage.programs)
    if name not in known:
      raise KeyError(
        f"--program={name}: the stage {cfg.stage.name!r} has no such program"
        f"{messages.suggest(name, known)}; it has {', '.join(known)}"
      )
    rows = abstract_batch(cfg, name, batch, mesh)
    state = abstract_state(cfg, stage, rows, mesh)
  key = _lay(_key(), sharding.replicated(mesh))
  if train:
    new = functools.partial(_train, cfg, state)
    return Program(name, new, (state, rows, key), batch, cfg.steps, state)
  takes = inspect.signature(stage.programs[name]).parameters
  args = (state, rows, key) if "key" in takes else (state, rows)
  new = functools.partial(_run, cfg, name, mesh)
  return Program(name, new, args, batch, 0, state)


def build_stage(cfg: Any) -> Stage:
  """The stage, as the loop builds it."""
  return registry.build(
    "stages", cfg.stage, steps=cfg.steps, **frozen_params.stage_args(cfg)
  )


def resolve(cfg: Any, spec: str, tokenizer: str, classes: int = CLASSES) -> Any:
  """Fills in what a run would find in its data and its tokenizer.

  Args:
    cfg: ConfigDict of the config `spec`.
    spec: what --config says; 'generator/x' uses the tokenizer 'tokenizer/x'.
    tokenizer: config of the frozen tokenizer; '' takes the run in
      cfg.tokenizer.workdir if there is one, else the one of the same name.
    classes: labels of the data.

  Raises:
    ValueError: the tokenizer is not known.
  """
  if "tokenizer" not in cfg:
    return cfg
  from magvit_jax import run_config

  folder = paths.as_path(cfg.tokenizer.workdir)
  if not tokenizer and (folder / "config.json").exists():
    source = workdirs.read_config(folder)["config"]
  else:
    family, _, name = spec.partition(":")[0].rpartition("/")
    if not tokenizer and not family.endswith("generator"):
      raise ValueError(
        f"--config={spec} needs a tokenizer, and {folder} holds no run of "
        "one; name its config with --tokenizer=tokenizer/NAME"
      )
    tokenizer = tokenizer or f"tokenizer/{name.removesuffix('.py')}"
    source = run_config.load_config(tokenizer)
  source, plain = registry.plain(source), registry.plain(cfg)
  own = {part: source["stage"][part] for part in frozen_params.PARTS}
  plain["tokenizer"] = {**plain["tokenizer"], **own}
  # Records of tokens do not say in a config what clips they are of; the
  # tokenizer was trained on the same.
  data = source["data"] if stores_ids(cfg) else plain["data"]
  plain["clips"] = {
    "shape": clip_shape(data),
    "labels": tuple(map(str, range(classes))),
  }
  return ml_collections.ConfigDict(plain)


def stores_ids(cfg: Any) -> bool:
  """Whether the batches of a config hold ids in place of videos."""
  return hasattr(registry.load("data", cfg.data.name), "ids_shape")


def clip_shape(data: Mapping[str, Any]) -> tuple[int, int, int, int]:
  """(t, h, w, 3) of the clips of a `data` group.

  Raises:
    ValueError: it does not say.
  """
  if "frames" not in data or "size" not in data:
    raise ValueError(
      f"the planner reads the shape of the clips in data.frames and "
      f"data.size, and the data of this config ({data.get('name')!r}) have "
      f"only {', '.join(data)}; plan a config that reads videos"
    )
  return (data["frames"], *data["size"], 3)


def _shape(cfg: Any) -> tuple[int, int, int, int]:
  """(t, h, w, 3) of the clips of a resolved config."""
  if "clips" in cfg:
    return tuple(cfg.clips.shape)
  return clip_shape(registry.plain(cfg.data))


def abstract_batch(
  cfg: Any, program: str, batch: int, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """What a program may read, split over the mesh as the loop does.

  Decoding starts from ids, and so does training on records of them; all else,
  a sample's condition too, from videos, as a batch with ids would not be
  encoded.
  """
  shape = _shape(cfg)
  rows = {
    "video": ((batch, *shape), jnp.float32),
    "label": ((batch,), jnp.int32),
    "file": ((batch,), jnp.int32),
    "index": ((batch,), jnp.int32),
    "task": ((batch,), jnp.int32),
    "valid": ((batch,), jnp.bool_),
  }
  if "images" in cfg and program == "train":
    frame = clip_shape(registry.plain(cfg.images.data))
    images = cfg.images.batch * batch // cfg.batch
    rows["image"] = ((images, *frame), jnp.float32)
  stored = stores_ids(cfg) and program in ("train", "predict")
  if program == "decode" or stored:
    del rows["video"]
    module = tokenizers.build_tokenizer(
      cfg.tokenizer if "tokenizer" in cfg else cfg.stage
    )
    grid = module.latent_shape(*shape[:3])
    rows["ids"] = ((batch, *module.quantizer.ids_shape(grid)), jnp.int32)
    if stored:
      for name in _generator_model.needs_of(module, cfg.stage.tasks, shape):
        rows[task_tables.ids_key(name)] = rows["ids"]
  return {
    k: jax.ShapeDtypeStruct(
      s, dtype, sharding=sharding.batch_sharding(mesh, len(s))
    )
    for k, (s, dtype) in rows.items()
  }


def abstract_state(
  cfg: Any,
  stage: Stage,
  rows: Mapping[str, jax.ShapeDtypeStruct],
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """The state of a run, laid out as the loop lays it."""
  video = jax.ShapeDtypeStruct((1, *_shape(cfg)), jnp.float32)
  images = {"image": rows["image"]} if "image" in rows else {}
  batch = {"label": rows["label"], "video": video, **images}
  state = jax.eval_shape(stage.init, _key(), batch, frozen_params.shapes(cfg))
  return sharding.lay(state, mesh)


def _train(cfg: Any, state: TrainState) -> Any:
  return loop.train_program(build_stage(cfg), state)


def _run(cfg: Any, name: str, mesh: jax.sharding.Mesh) -> Any:
  """A program under its own name, with which its scopes begin."""
  program = build_stage(cfg).programs[name]
  # Evaluation takes clips one by one, so that nothing is split by example.
  inside = name != "predict"

  def run(*args):
    with sharding.computing(mesh) if inside else contextlib.nullcontext():
      return program(*args)

  run.__name__ = name
  return jax.jit(run)


def _key() -> jax.ShapeDtypeStruct:
  return jax.eval_shape(lambda: jax.random.key(0))


def _lay(tree: PyTree, layout: Any) -> PyTree:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), tree
  )


def batch_parts(cfg: Any, topology: Topology) -> int:
  """Into how many parts the mesh of a config splits a batch."""
  sizes = registry.plain(cfg.mesh)
  known = math.prod(size for size in sizes.values() if size != -1)
  rest = max(1, topology.devices // known)
  return math.prod(
    rest if sizes[axis] == -1 else sizes[axis] for axis in sharding.BATCH_AXES
  )


def set_batch(cfg: Any, topology: Topology, each: int) -> None:
  """Sets batch and eval.batch to `each` examples per part of the mesh.

  Raises:
    ValueError: `each` is below 1.
  """
  if each < 1:
    raise ValueError(f"--per_chip_batch={each}: it must be at least 1")
  cfg.batch = cfg.eval.batch = each * batch_parts(cfg, topology)
