"""The nets of a generator's run: frozen tokenizer, generator, task tables.

Free functions turn batches into ids and conditions, and ids into videos. The
tokenizer's weights are always an argument.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry, tokenizers
from magvit_jax.generators import Generator
from magvit_jax.tasks import Tables, TokenCondition
from magvit_jax.tasks import tables as task_tables
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree


class Net(NamedTuple):
  """What the arguments of the stage build, and its static facts.

  Attributes:
    tokenizer: linen module; its weights are state.frozen['tokenizer'].
    generator: functions over ids.
    names: keys of the tasks, in the order of their index.
    tables: of the tasks, stacked.
    logits: float32 [tasks], log of the share of each task in training.
    direct: whether the known ids of every task are ids of the clip itself, so
      that no condition clip has to be encoded.
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
  direct: bool
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
) -> Net:
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
  stride, causal = module.strides[0], module.backbone.causal
  if causal:
    for name, table in tables.items():
      task_tables.check_causal(name, table, stride)
  generator = registry.build(
    "generators",
    generator,
    sizes=sizes,
    grid=grid,
    classes=classes,
    tasks=len(tables),
    dtype=str(tokenizers.compute_dtype(dtype)),
  )
  return Net(
    tokenizer=module,
    generator=generator,
    names=tuple(tables),
    tables=task_tables.stack(list(tables.values())),
    logits=_log_shares({name: tasks[name]["weight"] for name in tables}),
    direct=all(
      task_tables.from_prefix(table, stride)
      if causal
      else not table.known.any()
      for table in tables.values()
    ),
    sizes=sizes,
    grid=grid,
    shape=tuple(shape),
    classes=classes,
  )


def encode(net: Net, frozen: PyTree, video: Array) -> Array:
  """[b t h w 3] in [-1,1] -> ids int32 [b T H W f]."""
  params = {"params": frozen["tokenizer"]}
  return net.tokenizer.apply(params, video, method=net.tokenizer.encode)


def decode(net: Net, frozen: PyTree, ids: Array) -> Array:
  """ids int32 [b T H W f] -> video [b t h w 3] in [-1,1]."""
  params = {"params": frozen["tokenizer"]}
  video = net.tokenizer.apply(params, ids, method=net.tokenizer.decode)
  return jnp.clip(video.astype(jnp.float32), -1.0, 1.0)


def tokens(
  net: Net, frozen: PyTree, batch: dict[str, Array], task: Array
) -> tuple[Array, TokenCondition]:
  """The ids of a batch and its condition under each example's task.

  Args:
    net: see `Net`.
    frozen: {'tokenizer': params}.
    batch: 'label' int32 [b], and 'video' [b t h w 3] or 'ids' [b T H W f].
    task: int32 [b].

  Raises:
    ValueError: the batch holds ids, and a task needs its condition clip.
  """
  known = jnp.asarray(net.tables.known)[task]
  given = jnp.asarray(net.tables.label)[task]
  label = jnp.where(given, batch["label"], net.classes).astype(jnp.int32)
  if "ids" in batch and not net.direct:
    raise ValueError(
      f"the tasks {', '.join(net.names)} need the ids of their condition "
      "clips, which records of tokens do not hold: train on videos, or leave "
      "out the tasks that are not class_cond or, with a causal tokenizer, "
      "frame_prediction"
    )
  if "ids" in batch:
    ids = conditions = batch["ids"]
  elif net.direct:
    ids = conditions = encode(net, frozen, batch["video"])
  else:
    video = batch["video"]
    filled = task_tables.condition(net.tables, task, video).video
    both = encode(net, frozen, jnp.concatenate([video, filled]))
    ids, conditions = jnp.split(both, 2)
  return ids, TokenCondition(conditions, known, label, task)


def draw_task(key: Key, net: Net, shape: tuple[int, ...]) -> Array:
  return jax.random.categorical(key, net.logits, shape=shape).astype(jnp.int32)


def table_of(tables: Tables, task: int) -> Tables:
  return Tables(*(table[task] for table in tables))


def _log_shares(weights: Mapping[str, float]) -> np.ndarray:
  values = np.array(list(weights.values()), np.float32)
  if (values < 0).any() or not values.sum() > 0:
    raise ValueError(
      f"stage.tasks: the weights are {dict(weights)}; they must not be "
      "negative, and one of them must be positive"
    )
  with np.errstate(divide="ignore"):
    return np.log(values / values.sum())
