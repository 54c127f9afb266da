"""The nets of a generator's run: frozen tokenizer, generator, task tables.

Free functions turn batches into ids and conditions, and ids into videos. The
tokenizer's weights are always an argument.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry, sharding, tokenizers
from magvit_jax.generators import Generator
from magvit_jax.tasks import Tables, TokenCondition, regions
from magvit_jax.tasks import tables as task_tables
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree


class GeneratorModel(NamedTuple):
  """What the arguments of the stage build, and its static facts.

  Attributes:
    tokenizer: linen module; its weights are state.frozen['tokenizer'].
    generator: functions over ids.
    names: keys of the tasks, in the order of their index.
    tables: of the tasks, stacked.
    logits: float32 [tasks], log of the share of each task in training.
    needs: tasks whose known ids are not the clip's own, so that the condition
      clip has to be encoded.
    sizes: ids per factor.
    grid: (T, H, W).
    shape: (t, h, w, 3) of clips.
    classes: number of labels; it also stands for 'no label'.
  """

  tokenizer: Tokenizer
  generator: Generator
  names: tuple[str, ...]
  tables: Tables
  logits: np.ndarray
  needs: tuple[str, ...]
  sizes: tuple[int, ...]
  grid: tuple[int, int, int]
  shape: tuple[int, int, int, int]
  classes: int


def make_net(
  tokenizer: Mapping[str, Any],
  shape: tuple[int, ...],
  classes: int,
  generator: Mapping[str, Any],
  tasks: Mapping[str, Mapping[str, Any]],
  dtype: str,
) -> GeneratorModel:
  """The networks and tables of a config; see `make` for the arguments."""
  module = tokenizers.build_tokenizer(tokenizer)
  sizes = tuple(module.quantizer.sizes)
  if not sizes:
    raise ValueError(
      f"the tokenizer's quantizer {tokenizer['quantizer']['name']!r} is "
      "continuous and has no ids; train a generator on a discrete one"
    )
  grid = tuple(module.latent_shape(*shape[:3])[:3])
  tables = task_tables.build(tasks, shape, grid)
  _check_time(module, shape[0], grid[0], tables)
  generator = registry.build(
    "generators",
    generator,
    sizes=sizes,
    grid=grid,
    classes=classes,
    tasks=len(tables),
    dtype=str(tokenizers.compute_dtype(dtype)),
  )
  return GeneratorModel(
    tokenizer=module,
    generator=generator,
    names=tuple(tables),
    tables=task_tables.stack(list(tables.values())),
    logits=_log_shares({name: tasks[name]["weight"] for name in tables}),
    needs=needs(module, tables),
    sizes=sizes,
    grid=grid,
    shape=tuple(shape),
    classes=classes,
  )


def needs(module: Tokenizer, tables: Mapping[str, Tables]) -> tuple[str, ...]:
  """The tasks whose condition clips have to be encoded.

  A causal tokenizer finds the ids of given first frames in those of the whole
  clip; any other looks at all frames at once.
  """
  if module.backbone.causal:
    stride = module.strides[0]
    return tuple(
      name
      for name, own in tables.items()
      if not task_tables.from_prefix(own, stride)
    )
  return tuple(name for name, own in tables.items() if own.known.any())


def needs_of(
  module: Tokenizer,
  tasks: Mapping[str, Mapping[str, Any]],
  shape: tuple[int, ...],
) -> dict[str, Tables]:
  """The tables of those tasks of a config that `needs` names.

  Args:
    module: the tokenizer.
    tasks: by name, as in `stage.tasks`.
    shape: (t, h, w, 3) of the clips.
  """
  grid = module.latent_shape(*shape[:3])[:3]
  tables = task_tables.build(tasks, shape, grid)
  return {name: tables[name] for name in needs(module, tables)}


def init(net: GeneratorModel, key: Key) -> PyTree:
  """Fresh parameters of the generator."""
  ids = jnp.zeros((1, *net.grid, len(net.sizes)), jnp.int32)
  zero = jnp.zeros((1,), jnp.int32)
  cond = TokenCondition(ids, jnp.zeros((1, *net.grid), bool), zero, zero)
  return net.generator.init(key, ids, cond)


def encode(net: GeneratorModel, frozen: PyTree, video: Array) -> Array:
  """[b t h w 3] in [-1,1] -> ids int32 [b T H W f]."""
  params = {"params": sharding.whole(frozen["tokenizer"])}
  return net.tokenizer.apply(params, video, method=net.tokenizer.encode)


def decode(net: GeneratorModel, frozen: PyTree, ids: Array) -> Array:
  """ids int32 [b T H W f] -> video [b t h w 3] in [-1,1]."""
  params = {"params": sharding.whole(frozen["tokenizer"])}
  video = net.tokenizer.apply(params, ids, method=net.tokenizer.decode)
  return jnp.clip(video.astype(jnp.float32), -1.0, 1.0)


def tokens(
  net: GeneratorModel, frozen: PyTree, batch: dict[str, Array], task: Array
) -> tuple[Array, TokenCondition]:
  """The ids of a batch and its condition under each example's task.

  Args:
    net: see `GeneratorModel`.
    frozen: {'tokenizer': params}.
    batch: 'label' int32 [b], and 'video' [b t h w 3] or 'ids' [b T H W f]
      (and 'ids_TASK' alike, of the condition clips of the tasks in `needs`).
    task: int32 [b].

  Raises:
    ValueError: the batch holds ids, but not those of the condition clips of a
      task that needs them.
  """
  if "ids" in batch:
    ids, conditions = batch["ids"], _stored(net, batch, task)
  elif not net.needs:
    ids = conditions = encode(net, frozen, batch["video"])
  else:
    video = batch["video"]
    filled = task_tables.condition(net.tables, task, video).video
    both = encode(net, frozen, jnp.concatenate([video, filled]))
    ids, conditions = jnp.split(both, 2)
  return ids, as_condition(net, conditions, batch["label"], task)


def condition(
  net: GeneratorModel, frozen: PyTree, batch: dict[str, Array], task: Array
) -> TokenCondition:
  """What sampling is given; arguments and errors as those of `tokens`.

  Clips are encoded only if a task of the net is given any of their ids.
  """
  if net.tables.known.any():
    return tokens(net, frozen, batch, task)[1]
  ids = jnp.zeros((len(task), *net.grid, len(net.sizes)), jnp.int32)
  return as_condition(net, ids, batch["label"], task)


def as_condition(
  net: GeneratorModel, ids: Array, label: Array, task: Array
) -> TokenCondition:
  """Ids of condition clips, with what each example's task makes of them."""
  known = jnp.asarray(net.tables.known)[task]
  given = jnp.asarray(net.tables.label)[task]
  label = jnp.where(given, label, net.classes).astype(jnp.int32)
  return TokenCondition(ids, known, label, task)


def _stored(net: GeneratorModel, batch: dict[str, Array], task: Array) -> Array:
  """Each example's condition ids, of those that its record holds."""
  ids = batch["ids"]
  missing = [n for n in net.needs if task_tables.ids_key(n) not in batch]
  if missing:
    raise ValueError(
      f"the tasks {', '.join(missing)} need the ids of their condition clips, "
      "which these records do not hold: write them with `encode --split=… "
      "--tasks=CONFIG`, train on videos, or leave those tasks out"
    )
  for name in net.needs:
    own = (task == net.names.index(name))[:, None, None, None, None]
    ids = jnp.where(own, batch[task_tables.ids_key(name)], ids)
  return ids


def draw_task(key: Key, net: GeneratorModel, shape: tuple[int, ...]) -> Array:
  return jax.random.categorical(key, net.logits, shape=shape).astype(jnp.int32)


def table_of(tables: Tables, task: int) -> Tables:
  return Tables(*(table[task] for table in tables))


def _check_time(
  module: Tokenizer, frames: int, latents: int, tables: Mapping[str, Tables]
) -> None:
  """ValueError where a task's frames do not fit the tokenizer's latents."""
  stride, alone = module.strides[0], tokenizers.alone(module.backbone)
  if module.backbone.causal:
    for name, own in tables.items():
      task_tables.check_causal(name, own, stride)
  stop = alone + stride * np.arange(1 - alone, latents + 1 - alone)
  found = regions.spans(frames, latents)[1]
  if found.tolist() != stop.tolist():
    raise ValueError(
      f"clips of {frames} frames in {latents} latent frames look as if their "
      f"latents ended at {found.tolist()}, but the tokenizer's end at "
      f"{stop.tolist()} (stride {stride}); choose another number of frames"
    )


def _log_shares(weights: Mapping[str, float]) -> np.ndarray:
  values = np.array(list(weights.values()), np.float32)
  if (values < 0).any() or not values.sum() > 0:
    raise ValueError(
      f"stage.tasks: the weights are {dict(weights)}; they must not be "
      "negative, and one of them must be positive"
    )
  with np.errstate(divide="ignore"):
    return np.log(values / values.sum())
