"""Stage `generator`: trains a network over the ids of a frozen tokenizer.

Batches hold pixels, tokenised on the fly, or ids that `encode --split` wrote.
The tokenizer's weights are state.frozen, an argument of every program.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from magvit_jax import losses, optim, registry, tokenizers
from magvit_jax.decoding import maskgit
from magvit_jax.generators import Generator
from magvit_jax.stages import Stage, TrainState, update
from magvit_jax.tasks import Tables, TokenCondition
from magvit_jax.tasks import tables as task_tables
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree

_EVAL_SEED = 20_240_103  # evaluation draws the same masks in every run


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


def make(
  *,
  steps: int,
  tokenizer: Mapping[str, Any],
  shape: tuple[int, int, int, int],
  classes: int,
  generator: Mapping[str, Any],
  tasks: Mapping[str, Mapping[str, Any]],
  weights: Mapping[str, float],
  optim: Mapping[str, Any],
  ema: Mapping[str, Any],
  sampling: Mapping[str, Any],
  dtype: str = "auto",
) -> Stage:
  """Builds the stage.

  Args:
    steps: length of the run, for the schedules.
    tokenizer: `backbone`, `quantizer` and `dtype` of the frozen tokenizer.
    shape: (t, h, w, 3) of the clips.
    classes: number of labels.
    generator: config of a generators/ component.
    tasks: by name, the arguments of a tasks/ component and its `weight` in
      the mixture; each example draws its own.
    weights: weight of the loss term 'loss_tokens'.
    optim: arguments of optim.make.
    ema: `decay` and `warmup` of the average of the weights.
    sampling: arguments of decoding.maskgit.MaskGIT for evaluation, which
      are also the defaults of a user's samples.
    dtype: 'auto' (bfloat16 on TPU and GPU), 'float32' or 'bfloat16'.

  Raises:
    ValueError: clips that the tokenizer's grid does not divide, a continuous
      tokenizer, or a task that does not fit.
  """
  net = make_net(tokenizer, shape, classes, generator, tasks, dtype)
  train = _Training(net, steps, weights, optim, ema)
  method = maskgit.MaskGIT(**sampling)
  given = {
    name: task_tables.given_frames(_of(net.tables, i))
    for i, name in enumerate(net.names)
  }
  return Stage(
    init=train.init,
    step=train.step,
    programs=programs(net, method),
    context={
      "sizes": net.sizes,
      "latent_shape": net.tokenizer.latent_shape,
      "grid": net.grid,
      "shape": net.shape,
      "classes": classes,
      "tasks": net.names,
      "given": given,
      "labelled": {n: bool(net.tables.label[i]) for i, n in enumerate(given)},
      "method": method,
    },
  )


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


class _Training:
  """The functions of a training step, closed over what does not change."""

  def __init__(self, net, steps, weights, optimizer, ema):
    self.net: Net = net
    self.weights, self.ema = weights, ema
    self.tx: optax.GradientTransformation = optim.make(steps, **optimizer)

  def init(
    self, key: Key, batch: dict[str, Array], frozen: PyTree
  ) -> TrainState:
    """A fresh state; nothing of the batch is read."""
    del batch
    net = self.net
    ids = jnp.zeros((1, *net.grid, len(net.sizes)), jnp.int32)
    zero = jnp.zeros((1,), jnp.int32)
    cond = TokenCondition(ids, jnp.zeros((1, *net.grid), bool), zero, zero)
    params = {"gen": net.generator.init(key, ids, cond)}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt={"gen": self.tx.init(params["gen"])},
      ema=jax.tree.map(jnp.copy, params["gen"]),
      frozen=frozen,
      extra={
        "bad": jnp.zeros((), jnp.int32),
        "counts": tuple(jnp.zeros(size, jnp.float32) for size in net.sizes),
      },
    )

  def step(
    self, state: TrainState, batch: dict[str, Array], key: Key
  ) -> tuple[TrainState, dict[str, Array]]:
    """One update, applied only if all of it is finite."""
    draw, mask = jax.random.split(key)
    task = _draw_task(draw, self.net, batch["label"].shape)
    ids, cond = tokens(self.net, state.frozen, batch, task)
    (loss, (terms, logged)), grads = jax.value_and_grad(
      self._loss, has_aux=True
    )(state.params["gen"], state.step, ids, cond, mask)
    losses.check_weights(terms, self.weights, {})
    metrics = {"loss": loss, **logged, **terms}
    metrics["grad_norm_gen"] = optax.tree.norm(grads)
    new = self._update(state, grads, ids)
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    return update.guard(finite, new, state), metrics

  def _loss(self, params, step, ids, cond, key):
    loss, logged = self.net.generator.loss(params, ids, cond, key)
    terms = {"loss_tokens": loss}
    return losses.weighted_sum(terms, self.weights, {}, step), (terms, logged)

  def _update(self, state: TrainState, grads: PyTree, ids: Array) -> TrainState:
    updates, opt = self.tx.update(grads, state.opt["gen"], state.params["gen"])
    params = optax.apply_updates(state.params["gen"], updates)
    decay = optim.ema_decay(step=state.step, **self.ema)
    counts = tuple(
      count.at[ids[..., f].reshape(-1)].add(1.0)
      for f, count in enumerate(state.extra["counts"])
    )
    return state._replace(
      params={"gen": params},
      opt={"gen": opt},
      ema=update.average(state.ema, params, decay),
      extra={**state.extra, "counts": counts},
    )


def programs(net: Net, method: Any) -> dict[str, Any]:
  """What can be run with a trained state: the EMA weights are used."""

  def predict(state, batch):
    return _predict(net, method, state, batch)

  def sample(state, batch, key, method=method):
    _, cond = tokens(net, state.frozen, batch, batch["task"])
    ids = net.generator.sample(state.ema, cond, key, method)
    return {"ids": ids, "video": decode(net, state.frozen, ids)}

  def to_ids(state, batch):
    return {"ids": encode(net, state.frozen, batch["video"])}

  def to_video(state, batch):
    return {"video": decode(net, state.frozen, batch["ids"])}

  return dict(predict=predict, sample=sample, encode=to_ids, decode=to_video)


def _predict(net: Net, method: Any, state: TrainState, batch) -> dict:
  """Measures each clip alone: its keys follow from its place in the list."""
  keys = jax.vmap(_clip_keys)(batch["index"])
  task = jax.vmap(lambda k: _draw_task(k, net, ()))(keys[:, 0])
  ids, cond = tokens(net, state.frozen, batch, task)
  score = _each(net.generator.score)
  out = score(state.ema, ids, cond, keys[:, 1])
  result = {
    "file": batch["file"],
    "valid": batch["valid"],
    "ids": ids,
    "nats": out["nats"],
    "positions": out["positions"],
    "nats_unigram": _unigram(state.extra["counts"], ids, out["scored"]),
  }
  asked = _prediction_task(net)
  if asked is not None:
    task = jnp.full_like(task, asked)
    cond = (
      tokens(net, state.frozen, {**batch, "ids": ids}, task)[1]
      if (net.direct)
      else tokens(net, state.frozen, batch, task)[1]
    )
    sample = _each(lambda p, c, k: net.generator.sample(p, c, k, method))
    guess = sample(state.ema, cond, keys[:, 2])
    result |= _futures(net, state.frozen, asked, batch, ids, cond, guess)
  return result


def _futures(net, frozen, asked, batch, ids, cond, guess) -> dict[str, Array]:
  """The sampled future, its baselines and its ceiling, for metrics."""
  tables = _of(net.tables, asked)
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


def _prediction_task(net: Net) -> int | None:
  """The task that is given whole latent frames, and the fewest of them."""
  shares = {}
  for i in range(len(net.names)):
    known = net.tables.known[i]
    whole = known.all(axis=(1, 2))
    prefix = whole[0] and (np.diff(whole.astype(int)) <= 0).all()
    if prefix and (known.any(axis=(1, 2)) == whole).all():
      shares[i] = whole.mean()
  return min(shares, key=shares.get) if shares else None


def _unigram(counts: tuple[Array, ...], ids: Array, scored: Array) -> Array:
  """Nats [b] of the add-one unigram, summed over factors and positions."""
  nats = 0.0
  for f, count in enumerate(counts):
    logp = jnp.log(count + 1) - jnp.log(jnp.sum(count + 1))
    nats -= logp[ids[..., f]]
  return jnp.sum(nats * scored, axis=(1, 2, 3))


def _each(function: Any) -> Any:
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


def _draw_task(key: Key, net: Net, shape: tuple[int, ...]) -> Array:
  return jax.random.categorical(key, net.logits, shape=shape).astype(jnp.int32)


def _of(tables: Tables, task: int) -> Tables:
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
