"""Stage `tokenizer`: trains backbone and quantizer, with or without a GAN.

A step reconstructs its clips once. The gradient of every loss at the
reconstruction (pixels, perceptual, adversarial) and at the quantizer's terms is
pulled back through the tokenizer together; the discriminator differentiates
its own sum of terms at the same reconstruction (simultaneous updates, as MAGVIT
does), or at one made after the generator's update; see stages/_gan.py. With
`accumulate` that is so for each micro-batch, and a side is updated once.

A batch may hold images, 'image' [b' 1 h w 3], beside its clips. They pass
through the same net in the same step; their terms are named 'image_…', have
weights of their own, and are judged by a discriminator of their own or none.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from magvit_jax import losses, messages, optim, registry, tokenizers
from magvit_jax.losses import perceptual as perceptions
from magvit_jax.stages import (
  Stage,
  TrainState,
  _accumulation,
  _gan,
  _update,
  streams,
)
from magvit_jax.stages._accumulation import StepOutput
from magvit_jax.stages.streams import Stream
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree

NONE = {"name": "none"}


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
  image_discriminator: Mapping[str, Any] = NONE,
  adversarial: Mapping[str, Any] | None = None,
  perceptual: Mapping[str, Any] = NONE,
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
      quantizer ('loss_entropy' …), 'loss_perceptual' and, with a discriminator,
      those of stages/_gan.py. What has no weight of 'loss_l1', 'loss_l2',
      'd_r1' and 'd_lecam' is not computed; any other term without one is an
      error. Terms of images are 'image_loss_l2' and so on.
    optim: arguments of optim.make, for either side.
    ema: `decay` and `warmup` of the average of the generator's weights.
    discriminator: config of a discriminators/ component, or name 'none'.
    ramps: factor by step of a term's weight; see losses.ramp. 'delayed' on
      'g_adversarial' (and on 'd_…') is the step where the game starts.
    image_discriminator: that of images, or name 'none'.
    adversarial: arguments of gan.Adversarial; unused without a discriminator.
    perceptual: config of losses/perceptual.py, or name 'none'. The weights of
      its network are state.frozen['perceptual'].
    dtype: 'auto' (bfloat16 on TPU and GPU), 'float32' or 'bfloat16'.
    param_dtype: of the weights a step computes with; see stages/_update.py.
    accumulate: micro-batches of a step; see stages/_accumulation.py.
  """
  cfg = dict(backbone=backbone, quantizer=quantizer, dtype=dtype)
  module = tokenizers.build_tokenizer(cfg)
  train = _Training(
    module,
    _build_discriminator(discriminator, dtype),
    steps,
    weights,
    ramps,
    optim,
    ema,
    param_dtype,
    accumulate,
    image_critic=_build_discriminator(image_discriminator, dtype),
    adversarial=adversarial,
    perceptual=perceptions.build(perceptual, tokenizers.compute_dtype(dtype)),
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
    critic: Any,
    steps: int,
    weights: Mapping[str, float],
    ramps: Mapping[str, Mapping[str, Any]],
    optimizer: Mapping[str, Any],
    ema: Mapping[str, Any],
    param_dtype: str = "float32",
    accumulate: int = 1,
    *,
    image_critic: Any = None,
    adversarial: Mapping[str, Any] | None = None,
    perceptual: Any = None,
  ):
    messages.check_choice(
      "stage.param_dtype", param_dtype, _update.PARAM_DTYPES
    )
    self.module, self.ema = module, ema
    self.weights, self.ramps = weights, ramps
    self.param_dtype, self.accumulate = param_dtype, accumulate
    self.adversarial = _gan.Adversarial(**(adversarial or {}))
    self.streams = (
      Stream("video", "", "disc", critic),
      Stream("image", "image_", "disc_image", image_critic),
    )
    self.passes = streams.Passes(
      module, self.streams, weights, ramps, self.adversarial, perceptual
    )
    self.tx: optax.GradientTransformation = optim.make(steps, **optimizer)

  def init(
    self, key: Key, batch: dict[str, Array], frozen: PyTree
  ) -> TrainState:
    """A fresh state; the shapes come from the batch's 'video' and 'image'."""
    gen, disc = jax.random.split(key)
    video = batch["video"][:1]
    params = {"gen": self.module.init(gen, video).get("params", {})}
    averages = {}
    for stream in self.passes.present(batch):
      if stream.critic is None:
        continue
      own = jax.random.fold_in(disc, 1) if stream.prefix else disc
      critic = stream.critic.init(own, batch[stream.key][:1])
      params[stream.side] = critic["params"]
      if f"{stream.prefix}d_lecam" in self.weights:
        averages[stream.side] = _gan.start_averages()
    extra = {"bad": jnp.zeros((), jnp.int32)}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt={side: self.tx.init(p) for side, p in params.items()},
      ema=jax.tree.map(jnp.copy, params["gen"]),
      frozen=frozen,
      extra={**extra, "lecam": averages} if averages else extra,
    )

  def step(
    self, state: TrainState, batch: dict[str, Array], key: Key
  ) -> tuple[TrainState, dict[str, Array]]:
    """One update of every side, applied only if all of it is finite."""
    self._check_images(batch)
    turns = {
      "simultaneous": self._simultaneous,
      "alternating": self._alternating,
    }
    new, done = turns[self.adversarial.updates](state, batch, key)
    terms, logged = done.metrics["terms"], done.metrics["logged"]
    losses.check_weights(terms, self.weights, self.ramps)
    metrics = {**logged, **terms}
    for side, grad in done.grads.items():
      metrics[f"grad_norm_{side}"] = optax.tree.norm(grad)
    new = self._follow_logits(new, logged)
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    return _update.guard(finite, new, state), metrics

  def _simultaneous(self, state, batch, key) -> tuple[TrainState, StepOutput]:
    quantize, refresh = jax.random.split(key)

    def both(state, batch, key):
      made, recons = self.passes.generate(state, batch, key)
      return streams.beside(made, self.passes.criticise(state, batch, recons))

    done = self._run(both, state, batch, quantize)
    new = self._move(state, done.grads)
    return self._settle(new, done.stats, refresh), done

  def _alternating(self, state, batch, key) -> tuple[TrainState, StepOutput]:
    quantize, refresh = jax.random.split(key)

    def first(state, batch, key):
      return self.passes.generate(state, batch, key)[0]

    def second(state, batch, key):
      recons = self.passes.reconstruct_all(state, batch, key)
      return self.passes.criticise(state, batch, recons)

    made = self._run(first, state, batch, quantize)
    new = self._move(state, made.grads)
    new = self._settle(new, made.stats, refresh)
    judged = self._run(second, new, batch, quantize)
    return self._move(new, judged.grads), streams.beside(made, judged)

  def _run(self, function, state, batch, key) -> StepOutput:
    """`function` at the working copy of the weights, by micro-batches."""
    copy = _update.working_copy(state.params, self.param_dtype)
    function = functools.partial(function, state._replace(params=copy))
    return _accumulation.run(function, batch, key, self.accumulate)

  def _move(self, state: TrainState, grads: PyTree) -> TrainState:
    """One update of the optimizer for each side that has a gradient."""
    params, opt = dict(state.params), dict(state.opt)
    for side, grad in grads.items():
      params[side], opt[side] = _update.apply(
        self.tx, grad, opt[side], params[side]
      )
    return state._replace(params=params, opt=opt)

  def _settle(self, state: TrainState, stats: PyTree, key: Key) -> TrainState:
    """After the generator has moved: its codebook, and the average."""
    with jax.named_scope("refresh"):
      gen = self.module.refresh(state.params["gen"], stats, key)
    decay = optim.ema_decay(step=state.step, **self.ema)
    ema = _update.average(state.ema, gen, decay)
    return state._replace(params={**state.params, "gen": gen}, ema=ema)

  def _follow_logits(self, state, logged) -> TrainState:
    """LeCAM's averages after the logits of the whole batch."""
    if "lecam" not in state.extra:
      return state
    averages = dict(state.extra["lecam"])
    for stream in self.streams:
      if stream.side in averages:
        real, fake = (logged[f"{stream.prefix}logit_{k}"] for k in _gan.KINDS)
        old = averages[stream.side]
        averages[stream.side] = self.adversarial.follow(old, real, fake)
    return state._replace(extra={**state.extra, "lecam": averages})

  def _check_images(self, batch: Mapping[str, Array]) -> None:
    """KeyError for images without losses, and for losses without images."""
    images = self.streams[1]
    weighted = any(name.startswith(images.prefix) for name in self.weights)
    if images.key in batch and not weighted:
      raise KeyError(
        "the batch has images, and no loss of them has a weight; add "
        "'image_loss_l2' and the like to stage.weights, or give no images"
      )
    if images.key not in batch and (weighted or images.critic is not None):
      raise KeyError(
        "stage.weights has terms 'image_…' or stage.image_discriminator a "
        "name, and the batch has no images; give the run images, or remove "
        "these weights and use the name 'none'"
      )


def _build_discriminator(cfg: Mapping[str, Any], dtype: str) -> Any:
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
