"""What evaluation asks of a generator: masked ids, and the frames to come.

Every clip has its own keys, which follow from its place in the list, so that
results do not depend on the batch a clip is in.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.stages import TrainState
from magvit_jax.stages._generator_model import (
  GeneratorModel,
  as_condition,
  decode,
  draw_task,
  table_of,
  tokens,
)
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import Array, Key

_EVAL_SEED = 20_240_103  # evaluation draws the same masks in every run


def predict(net: GeneratorModel, method: Any, state: TrainState, batch) -> dict:
  """Measures each clip alone: its keys follow from its place in the list."""
  keys = jax.vmap(_clip_keys)(batch["index"])
  task = jax.vmap(lambda k: draw_task(k, net, ()))(keys[:, 0])
  ids, cond = tokens(net, state.frozen, batch, task)
  score = each(net.generator.score)
  out = score(state.ema, ids, cond, keys[:, 1])
  result = {
    "file": batch["file"],
    "valid": batch["valid"],
    "ids": ids,
    "nats": out["nats"],
    "positions": out["positions"],
    "nats_unigram": _unigram(state.extra["counts"], ids, out["scored"]),
  }
  asked = prediction_task(net)
  if asked is not None:
    task = jnp.full_like(task, asked)
    if net.names[asked] in net.needs:
      _, cond = tokens(net, state.frozen, batch, task)
    else:
      cond = as_condition(net, ids, batch["label"], task)
    sample = each(lambda p, c, k: net.generator.sample(p, c, k, method))
    guess = sample(state.ema, cond, keys[:, 2])
    result |= _futures(net, state.frozen, asked, batch, ids, cond, guess)
  return result


def _futures(net, frozen, asked, batch, ids, cond, guess) -> dict[str, Array]:
  """The sampled future, its baselines and its ceiling, for metrics."""
  tables = table_of(net.tables, asked)
  known = np.flatnonzero(tables.known.all(axis=(1, 2)))
  frame = np.minimum(np.arange(net.grid[0]), known[-1])
  repeat = cond.ids[:, frame]
  out = {
    "ids_predicted": guess,
    "ids_repeat": repeat,
    "unknown": ~cond.known,
  }
  if "video" not in batch:
    return out
  video = decode(net, frozen, jnp.concatenate([guess, repeat, ids]))
  predicted, repeated, recon = jnp.split(video, 3)
  given = task_tables.given_frames(tables)
  still = np.minimum(np.arange(net.shape[0]), given - 1)
  hidden = np.arange(net.shape[0]) >= given
  return {
    **out,
    "video": batch["video"],
    "recon": recon,
    "predicted": predicted,
    "repeat": repeated,
    "still": batch["video"][:, still],
    "hidden": jnp.broadcast_to(hidden, batch["video"].shape[:2]),
  }


def prediction_task(net: GeneratorModel) -> int | None:
  """The task that is given whole latent frames, and the fewest of them.

  Of two that are given as many, the one that is not told the label.
  """
  found = {}
  for i in range(len(net.names)):
    known = net.tables.known[i]
    whole = known.all(axis=(1, 2))
    prefix = whole[0] and (np.diff(whole.astype(int)) <= 0).all()
    if prefix and (known.any(axis=(1, 2)) == whole).all():
      found[i] = whole.mean(), bool(net.tables.label[i])
  return min(found, key=found.get) if found else None


def _unigram(counts: tuple[Array, ...], ids: Array, scored: Array) -> Array:
  """Nats [b] of the add-one unigram, summed over factors and positions."""
  nats = 0.0
  for f, count in enumerate(counts):
    logp = jnp.log(count + 1) - jnp.log(jnp.sum(count + 1))
    nats -= logp[ids[..., f]]
  return jnp.sum(nats * scored, axis=(1, 2, 3))


def each(function: Any) -> Any:
  """(params, rows …, keys) -> rows: each row alone, with its own key.

  What a clip gets then does not depend on the clips beside it.
  """

  def one(params, *args):
    *rows, key = args
    rows = jax.tree.map(lambda x: x[None], rows)
    return jax.tree.map(lambda x: x[0], function(params, *rows, key))

  def all_rows(params, *args):
    return jax.vmap(lambda *row: one(params, *row))(*args)

  return all_rows


def _clip_keys(index: Array) -> Key:
  return jax.random.split(
    jax.random.fold_in(jax.random.key(_EVAL_SEED), index), 3
  )
