"""The programs of an export, traced by jax.export.

Weights are an argument, a flat dict of arrays by name. The number of clips b is
a symbol, and so is the number of latent frames k of a causal tokenizer, whose
clips have st*k-(st-1) frames; height and width are those of the training clips.

Layers choose how they compute by the platform they are traced for. So a program
is traced for each (nn/target_platform.py), and the file holds the choice
between them.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export as jax_export

from magvit_jax import messages, tokenizers, tree_utils
from magvit_jax.checkpoints import frozen_params, saved_weights
from magvit_jax.decoding import maskgit
from magvit_jax.export import program_file
from magvit_jax.files import paths
from magvit_jax.nn import target_platform
from magvit_jax.stages import _generator_model, _prediction_eval
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import Array, PyTree

# Names of jax.export, and those of nn/target_platform.py.
PLATFORMS = {"cpu": "cpu", "tpu": "tpu", "cuda": "gpu", "rocm": "gpu"}
# What follows from k >= 1, for the b*(st*k-(st-1)) frames of a batch.
POSITIVE = "b*k >= b"
Config = Mapping[str, Any]


class Program(NamedTuple):
  """A function before it is traced.

  Attributes:
    make: builds (params, *arguments) -> results for the platform that is
      traced for.
    arguments: shapes of what comes after params, by name.
  """

  make: Callable[[], Callable[..., PyTree]]
  arguments: dict[str, jax.ShapeDtypeStruct]


def weight_shapes(config: Config) -> PyTree:
  """Shapes of all weights of the model of a config.

  Args:
    config: `config` of a config.json; its stage is 'tokenizer' or 'generator'.
  """
  if config["stage"]["name"] == "tokenizer":
    return tokenizers.abstract(tokenizers.build_tokenizer(config["stage"]))
  net = _net(config)
  own = jax.eval_shape(lambda: _generator_model.init(net, jax.random.key(0)))
  return {"generator": own, **frozen_params.shapes(config)}


def programs(config: Config) -> dict[str, Program]:
  """The programs of the model of a config, by name.

  Raises:
    ValueError: a tokenizer without ids.
  """
  weights = weight_shapes(config)
  if config["stage"]["name"] == "tokenizer":
    stage, t = config["stage"], config["data"]["frames"]
    h, w = config["data"]["size"]
    part = _same
  else:
    stage, (t, h, w, _) = config["tokenizer"], config["clips"]["shape"]
    part = operator.itemgetter("tokenizer")
  module = tokenizers.build_tokenizer(stage)
  if not module.quantizer.sizes:
    raise ValueError(
      f"the quantizer {stage['quantizer']['name']!r} is continuous, so there "
      "are no ids to encode into; only a tokenizer with ids can be exported"
    )
  (batch,) = jax_export.symbolic_shape("b")
  if _any_length(module, (t, h, w)):
    batch, latents = jax_export.symbolic_shape("b, k", constraints=(POSITIVE,))
    t = module.strides[0] * (latents - 1) + 1
  codec = functools.partial(_codec, stage, part, weights)
  video = _array(batch, t, h, w, 3)
  encode = Program(functools.partial(codec, "encode"), {"video": video})
  ids = jax.eval_shape(encode.make(), _flat_shapes(weights), video)
  decode = Program(functools.partial(codec, "decode"), {"ids": ids})
  found = {"encode": encode, "decode": decode}
  if config["stage"]["name"] == "generator":
    found["sample"] = _sampling(config, weights)
  return found


def export(
  name: str, program: Program, weights: PyTree, platforms: Sequence[str]
) -> jax_export.Exported:
  """Traces a program for all platforms.

  Args:
    name: of the program, for errors of those who call it.
    program: see `programs`.
    weights: shapes, as `weight_shapes` gives them.
    platforms: keys of PLATFORMS.
  """
  branches = {p: _traced_for(PLATFORMS[p], program.make) for p in platforms}

  def run(*args):
    if len(branches) == 1:
      return branches[platforms[0]](*args)
    return jax.lax.platform_dependent(*args, **branches)

  run.__name__ = name
  traced = jax_export.export(jax.jit(run), platforms=tuple(platforms))
  return traced(_flat_shapes(weights), *program.arguments.values())


def check_platforms(platforms: Sequence[str]) -> None:
  """ValueError for an unknown platform, one given twice, or none."""
  for platform in platforms:
    messages.check_choice("--platforms", platform, PLATFORMS)
  if not platforms or len(set(platforms)) < len(platforms):
    raise ValueError(
      f"--platforms={','.join(platforms)}: name each platform once, and at "
      "least one"
    )


def _traced_for(
  platform: str, make: Callable[[], Callable[..., PyTree]]
) -> Callable[..., PyTree]:
  """The function that `make` builds, built and traced for a platform."""

  def run(*args):
    with target_platform.tracing_for(platform):
      return make()(*args)

  return run


def _codec(
  stage: Config, part: Callable[[PyTree], PyTree], weights: PyTree, method: str
) -> Callable[..., Array]:
  """(params, video) -> ids, or (params, ids) -> video in [-1, 1]."""
  module = tokenizers.build_tokenizer(stage)

  def run(params, x):
    variables = {"params": part(_tree(weights, params))}
    out = module.apply(variables, x, method=getattr(module, method))
    if method == "encode":
      return out
    return jnp.clip(out.astype(jnp.float32), -1.0, 1.0)

  return run


def _any_length(module: Any, clip: Sequence[int]) -> bool:
  """Whether latents are coded as they come, each with ids of its own."""
  shape = (1, *module.latent_shape(*clip))
  own = len(module.quantizer.ids_shape(shape)) == len(shape)
  return own and module.backbone.causal


def _sampling(config: Config, weights: PyTree) -> Program:
  """(params, video, task, label, seed) -> {'ids', 'video'}.

  Of a clip a task reads what it is given; 'label' is a class, and any other
  number is none. Row k depends on the seed and on k alone.
  """
  method = maskgit.MaskGIT(**config["stage"]["sampling"])

  def make():
    net = _net(config)

    def run(params, video, task, label, seed):
      tree = _tree(weights, params)
      cond = _condition(net, tree, video, task, label)
      # The keys of sampler.py, for the first chunk of a video.
      key = jax.random.fold_in(jax.random.key(seed), 0)
      rows = jnp.arange(task.shape[0])
      keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
      sample = _prediction_eval.each(
        lambda params, cond, key: net.generator.sample(
          params, cond, key, method
        )
      )
      ids = sample(tree["generator"], cond, keys)
      return {"ids": ids, "video": _generator_model.decode(net, tree, ids)}

    return run

  (batch,) = jax_export.symbolic_shape("b")
  number = jax.ShapeDtypeStruct((batch,), jnp.int32)
  return Program(
    make,
    {
      "video": _array(batch, *config["clips"]["shape"]),
      "task": number,
      "label": number,
      "seed": jax.ShapeDtypeStruct((), jnp.uint32),
    },
  )


def _condition(
  net: _generator_model.GeneratorModel,
  weights: PyTree,
  video: Array,
  task: Array,
  label: Array,
) -> Any:
  """What each row is given by its own task, from the clip that it sees."""
  label = jnp.where((label >= 0) & (label < net.classes), label, net.classes)
  if not net.tables.known.any():
    shape = (task.shape[0], *net.grid, len(net.sizes))
    ids = jnp.zeros(shape, jnp.int32)
  else:
    shown = task_tables.condition(net.tables, task, video).video
    ids = _generator_model.encode(net, weights, shown)
  return _generator_model.as_condition(net, ids, label, task)


def _net(config: Config) -> _generator_model.GeneratorModel:
  stage = config["stage"]
  return _generator_model.make_net(
    generator=stage["generator"],
    tasks=stage["tasks"],
    dtype=stage["dtype"],
    **frozen_params.stage_args(config),
  )


def _array(*shape: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _flat_shapes(weights: PyTree) -> dict[str, jax.ShapeDtypeStruct]:
  return tree_utils.named(weights)


def _tree(weights: PyTree, params: Mapping[str, Array]) -> PyTree:
  """The flat `params` as `weights` nests them."""
  leaves = [params[name] for name in tree_utils.named(weights)]
  return jax.tree.unflatten(jax.tree.structure(weights), leaves)


def _same(tree: PyTree) -> PyTree:
  return tree


def program(folder: paths.Name, name: str) -> Callable[..., PyTree]:
  """A program of an export, jitted: (params, …) -> …, as config.json says.

  Args:
    folder: the export.
    name: such as 'encode'.

  Raises:
    FileNotFoundError: its file is missing.
    ValueError: the export has no such program, it was altered, or it was not
      made for the platform of this process.
  """
  messages.check_choice(
    "program", name, saved_weights.document(folder).get("programs", {})
  )
  file = program_file(name)
  saved_weights.check_file(folder, file)
  data = (paths.as_path(folder) / file).read_bytes()
  loaded = jax_export.deserialize(bytearray(data))
  here = jax_export.default_export_platform()
  if here not in loaded.platforms:
    raise ValueError(
      f"{folder}/{file} was exported for {', '.join(loaded.platforms)}, and "
      f"this process runs on {here}; export it with --platforms={here}, or set "
      f"JAX_PLATFORMS to one of those"
    )
  return jax.jit(loaded.call)
