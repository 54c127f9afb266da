"""Stage `generator`: trains a network over the ids of a frozen tokenizer.

Batches hold pixels, tokenised on the fly, or ids that `encode --split` wrote.
The tokenizer's weights are state.frozen, an argument of every program.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from magvit_jax import losses, messages, optim
from magvit_jax.decoding import maskgit
from magvit_jax.stages import (
  Stage,
  TrainState,
  _accumulation,
  _generator_model,
  _prediction_eval,
  _update,
)
from magvit_jax.stages._generator_model import GeneratorModel
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import Array, Key, PyTree


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
  param_dtype: str = "float32",
  accumulate: int = 1,
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
    param_dtype: of the weights a step computes with; see stages/_update.py.
    accumulate: micro-batches of a step; see stages/_accumulation.py.

  Raises:
    ValueError: clips that the tokenizer's grid does not divide, a continuous
      tokenizer, or a task that does not fit.
  """
  net = _generator_model.make_net(
    tokenizer, shape, classes, generator, tasks, dtype
  )
  train = _Training(net, steps, weights, optim, ema, param_dtype, accumulate)
  method = maskgit.MaskGIT(**sampling)
  given = {
    name: task_tables.given_frames(_generator_model.table_of(net.tables, i))
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
    accumulate=accumulate,
  )


class _Training:
  """The functions of a training step, closed over what does not change."""

  def __init__(
    self, net, steps, weights, optimizer, ema, param_dtype, accumulate
  ):
    self.net: GeneratorModel = net
    self.weights, self.ema = weights, ema
    messages.check_choice(
      "stage.param_dtype", param_dtype, _update.PARAM_DTYPES
    )
    self.param_dtype = param_dtype
    self.accumulate: int = accumulate
    self.tx: optax.GradientTransformation = optim.make(steps, **optimizer)

  def init(
    self, key: Key, batch: dict[str, Array], frozen: PyTree
  ) -> TrainState:
    """A fresh state; nothing of the batch is read."""
    del batch
    net = self.net
    params = {"gen": _generator_model.init(net, key)}
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
    copy = _update.working_copy(state.params, self.param_dtype)
    grads, metrics, counts = _accumulation.run(
      functools.partial(self._pass, state._replace(params=copy)),
      batch,
      key,
      self.accumulate,
    )
    metrics["grad_norm_gen"] = optax.tree.norm(grads)
    new = self._update(state, grads, counts)
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    return _update.guard(finite, new, state), metrics

  def _pass(
    self, state: TrainState, batch: dict[str, Array], key: Key
  ) -> _accumulation.StepOutput:
    """Terms, gradients and the histogram of ids of a (micro-)batch."""
    draw, mask = jax.random.split(key)
    with jax.named_scope("tokenize"):
      task = _generator_model.draw_task(draw, self.net, batch["label"].shape)
      ids, cond = _generator_model.tokens(self.net, state.frozen, batch, task)
    with jax.named_scope("transformer"):
      (loss, (terms, logged)), grads = jax.value_and_grad(
        self._loss, has_aux=True
      )(state.params["gen"], state.step, ids, cond, mask)
    losses.check_weights(terms, self.weights, {})
    metrics = {"loss": loss, **logged, **terms}
    return _accumulation.StepOutput(grads, metrics, self._counts(ids))

  def _loss(self, params, step, ids, cond, key):
    loss, logged = self.net.generator.loss(params, ids, cond, key)
    terms = {"loss_tokens": loss}
    return losses.weighted_sum(terms, self.weights, {}, step), (terms, logged)

  def _counts(self, ids: Array) -> tuple[Array, ...]:
    """Per factor, how often each id occurs: float32 [size]."""
    return tuple(
      jnp.zeros(size, jnp.float32).at[ids[..., f].reshape(-1)].add(1.0)
      for f, size in enumerate(self.net.sizes)
    )

  def _update(
    self, state: TrainState, grads: PyTree, counts: tuple[Array, ...]
  ) -> TrainState:
    params, opt = _update.apply(
      self.tx, grads, state.opt["gen"], state.params["gen"]
    )
    decay = optim.ema_decay(step=state.step, **self.ema)
    counts = jax.tree.map(jnp.add, state.extra["counts"], counts)
    return state._replace(
      params={"gen": params},
      opt={"gen": opt},
      ema=_update.average(state.ema, params, decay),
      extra={**state.extra, "counts": counts},
    )


def programs(net: GeneratorModel, method: Any) -> dict[str, Any]:
  """What can be run with a trained state: the EMA weights are used."""

  def predict(state, batch):
    return _prediction_eval.predict(net, method, state, batch)

  def sample(state, batch, key, method=method):
    cond = _generator_model.condition(net, state.frozen, batch, batch["task"])
    ids = net.generator.sample(state.ema, cond, key, method)
    return {
      "ids": ids,
      "video": _generator_model.decode(net, state.frozen, ids),
    }

  def to_ids(state, batch):
    return {"ids": _generator_model.encode(net, state.frozen, batch["video"])}

  def to_video(state, batch):
    return {"video": _generator_model.decode(net, state.frozen, batch["ids"])}

  return dict(predict=predict, sample=sample, encode=to_ids, decode=to_video)
