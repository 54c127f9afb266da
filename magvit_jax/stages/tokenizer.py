"""Stage `tokenizer`: trains backbone and quantizer, with or without a GAN.

Generator and discriminator are updated from one forward pass (simultaneously,
as MAGVIT does): the step computes the reconstruction once, and each side
differentiates its own sum of terms. With `accumulate` that is so for each
micro-batch, and both sides are updated once.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from magvit_jax import losses, optim, registry, tokenizers
from magvit_jax.losses import adversarial, reconstruction
from magvit_jax.quantizers import Quantized
from magvit_jax.stages import Stage, TrainState, accumulation, update
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree


def make(
  *,
  steps: int,
  backbone: Mapping[str, Any],
  quantizer: Mapping[str, Any],
  weights: Mapping[str, float],
  optim: Mapping[str, Any],
  ema: Mapping[str, Any],
  discriminator: Mapping[str, Any],
  ramps: Mapping[str, Mapping[str, Any]],
  dtype: str = "auto",
  param_dtype: str = "float32",
  accumulate: int = 1,
) -> Stage:
  """Builds the stage.

  Args:
    steps: length of the run, for the schedules.
    backbone: config of a tokenizers/ component.
    quantizer: config of a quantizers/ component.
    weights: weight of each loss term: 'loss_l1', 'loss_l2', those of the
      quantizer ('loss_entropy' …) and, with a discriminator, 'g_adversarial'
      and 'd_adversarial'. Reconstruction terms without a weight are not
      computed; any other term without one is an error.
    optim: arguments of optim.make, for either side.
    ema: `decay` and `warmup` of the average of the generator's weights.
    discriminator: config of a discriminators/ component, or name 'none'.
    ramps: factor by step of a term's weight; see losses.ramp.
    dtype: 'auto' (bfloat16 on TPU and GPU), 'float32' or 'bfloat16'.
    param_dtype: of the weights a step computes with; see stages/update.py.
    accumulate: micro-batches of a step; see stages/accumulation.py.
  """
  cfg = dict(backbone=backbone, quantizer=quantizer, dtype=dtype)
  module = tokenizers.build_tokenizer(cfg)
  critic = _build_discriminator(discriminator, dtype)
  train = _Training(
    module, critic, steps, weights, ramps, optim, ema, param_dtype, accumulate
  )
  return Stage(
    init=train.init,
    step=train.step,
    programs=_programs(module),
    context={
      "sizes": tuple(module.quantizer.sizes),
      "latent_shape": module.latent_shape,
    },
    accumulate=accumulate,
  )


class _Training:
  """The functions of a training step, closed over what does not change."""

  def __init__(
    self,
    module: Tokenizer,
    critic: nn.Module | None,
    steps: int,
    weights: Mapping[str, float],
    ramps: Mapping[str, Mapping[str, Any]],
    optimizer: Mapping[str, Any],
    ema: Mapping[str, Any],
    param_dtype: str = "float32",
    accumulate: int = 1,
  ):
    self.module, self.critic = module, critic
    self.weights, self.ramps, self.ema = weights, ramps, ema
    registry.check_choice("stage.param_dtype", param_dtype, update.PARAM_DTYPES)
    self.param_dtype = param_dtype
    self.accumulate = accumulate
    self.tx: optax.GradientTransformation = optim.make(steps, **optimizer)

  def init(
    self, key: Key, batch: dict[str, Array], frozen: PyTree
  ) -> TrainState:
    """A fresh state; the shapes come from batch['video']."""
    video = batch["video"][:1]
    gen, disc = jax.random.split(key)
    params = {"gen": self.module.init(gen, video).get("params", {})}
    if self.critic is not None:
      params["disc"] = self.critic.init(disc, video)["params"]
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt={side: self.tx.init(p) for side, p in params.items()},
      ema=jax.tree.map(jnp.copy, params["gen"]),
      frozen=frozen,
      extra={"bad": jnp.zeros((), jnp.int32)},
    )

  def step(
    self, state: TrainState, batch: dict[str, Array], key: Key
  ) -> tuple[TrainState, dict[str, Array]]:
    """One update of both sides, applied only if all of it is finite."""
    quantize, refresh = jax.random.split(key)
    copy = update.working_copy(state.params, self.param_dtype)
    grads, metrics, stats = accumulation.run(
      functools.partial(self._pass, state._replace(params=copy)),
      batch,
      quantize,
      self.accumulate,
    )
    for side, grad in grads.items():
      metrics[f"grad_norm_{side}"] = optax.tree.norm(grad)
    new = self._update(state, grads, stats, refresh)
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    return update.guard(finite, new, state), metrics

  def _pass(
    self, state: TrainState, batch: dict[str, Array], key: Key
  ) -> accumulation.Pass:
    """Terms and gradients of both sides over a (micro-)batch."""
    video = batch["video"]
    (loss, (out, terms, logged)), grads = jax.value_and_grad(
      self._generator_loss, has_aux=True
    )(state.params["gen"], state, video, key)
    recon, quantized = out
    metrics = {"loss": loss, **logged}
    grads = {"gen": grads}
    if self.critic is not None:
      with jax.named_scope("discriminator"):
        (loss, more), grads["disc"] = jax.value_and_grad(
          self._discriminator_loss, has_aux=True
        )(state.params["disc"], state.step, video, jax.lax.stop_gradient(recon))
      terms, metrics["loss_discriminator"] = {**terms, **more}, loss
    losses.check_weights(terms, self.weights, self.ramps)
    return accumulation.Pass(grads, {**metrics, **terms}, quantized.stats)

  def _generator_loss(self, params, state, video, key):
    recon, quantized = self.module.apply({"params": params}, video, key=key)
    with jax.named_scope("losses"):
      terms = {
        name: loss(video, recon)
        for name, loss in reconstruction.LOSSES.items()
        if name in self.weights
      }
    split = _split(quantized)
    terms |= split[0]
    if self.critic is not None:
      fake = self.critic.apply({"params": state.params["disc"]}, recon)
      terms["g_adversarial"] = adversarial.generator_non_saturating(fake)
    loss = losses.weighted_sum(terms, self.weights, self.ramps, state.step)
    return loss, ((recon, quantized), terms, split[1])

  def _discriminator_loss(self, params, step, video, recon):
    real = self.critic.apply({"params": params}, video)
    fake = self.critic.apply({"params": params}, recon)
    terms = {
      "d_adversarial": adversarial.discriminator_non_saturating(real, fake)
    }
    return losses.weighted_sum(terms, self.weights, self.ramps, step), terms

  def _update(self, state, grads, stats, key) -> TrainState:
    params, opt = {}, {}
    for side, grad in grads.items():
      params[side], opt[side] = update.apply(
        self.tx, grad, state.opt[side], state.params[side]
      )
    with jax.named_scope("refresh"):
      params["gen"] = self.module.refresh(params["gen"], stats, key)
    decay = optim.ema_decay(step=state.step, **self.ema)
    ema = update.average(state.ema, params["gen"], decay)
    return state._replace(params=params, opt=opt, ema=ema)


def _split(quantized: Quantized) -> tuple[dict[str, Array], dict[str, Array]]:
  """The loss terms of a quantizer, and what it only logs."""
  terms = {k: v for k, v in quantized.aux.items() if k.startswith("loss_")}
  logged = {k: v for k, v in quantized.aux.items() if k not in terms}
  return terms, logged


def _build_discriminator(
  cfg: Mapping[str, Any], dtype: str
) -> nn.Module | None:
  if cfg["name"] == "none":
    return None
  dtype = tokenizers.compute_dtype(dtype)
  return registry.build("discriminators", cfg, dtype=dtype)


def _programs(module: Tokenizer) -> dict[str, Any]:
  """What can be run with a trained state: the EMA weights are used."""

  def predict(state, batch):
    recon, quantized = module.apply({"params": state.ema}, batch["video"])
    return {
      "video": batch["video"],
      "recon": jnp.clip(recon, -1.0, 1.0),
      "ids": quantized.ids,
      "file": batch["file"],
      "valid": batch["valid"],
    }

  def encode(state, batch):
    params = {"params": state.ema}
    return {"ids": module.apply(params, batch["video"], method=module.encode)}

  def decode(state, batch):
    params = {"params": state.ema}
    video = module.apply(params, batch["ids"], method=module.decode)
    return {"video": jnp.clip(video, -1.0, 1.0)}

  return {"predict": predict, "encode": encode, "decode": decode}
