"""Stage `tokenizer`: trains backbone and quantizer, with or without a GAN.

`train_step` is the whole step, top to bottom. The clips are reconstructed once;
the gradient of every loss at the reconstruction (pixels, perceptual,
adversarial) and at the quantizer's terms is pulled back through the tokenizer
together. The discriminator differentiates its own sum of terms at the same
reconstruction (simultaneous updates, as MAGVIT does), or at one made after the
generator's update; see stages/_gan.py. With `accumulate` that is so for each
micro-batch, and each set of weights is updated once.

A batch may hold images, 'image' [b' 1 h w 3], beside its clips. They pass
through the same net in the same step; their terms are named 'image_…', have
weights of their own, and go to a discriminator of their own or none.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from magvit_jax import losses, optim, registry, tokenizers
from magvit_jax.losses import adversarial, perceptual, reconstruction
from magvit_jax.stages import Stage, TrainState, _accumulation, _gan, _update
from magvit_jax.stages._accumulation import StepOutput, add_outputs, merge
from magvit_jax.stages._recipe import (
  Batch,
  Modality,
  Recipe,
  check_images,
  init_state,
  modalities,
)
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree

NONE = {"name": "none"}


def train_step(
  recipe: Recipe, state: TrainState, batch: Batch, key: Key
) -> tuple[TrainState, dict[str, Array]]:
  """One update of generator and discriminators, if all of it is finite.

  Args:
    recipe: see `Recipe`.
    state: params of 'gen', 'disc' and 'disc_image'.
    batch: 'video' [b t h w 3] and maybe 'image' [b' 1 h w 3], in [-1, 1].
    key: of this step.

  Returns:
    (new state, float32 scalars: every term, 'loss', 'grad_norm_…' …).
  """
  check_images(recipe, batch)
  key, refresh_key = jax.random.split(key)

  def gradients(function, state):
    """`function` at the working copy of the weights, over micro-batches."""
    params = _update.working_copy(state.params, recipe.param_dtype)
    function = functools.partial(
      function, recipe, state._replace(params=params)
    )
    return _accumulation.run(function, batch, key, recipe.accumulate)

  if recipe.adversarial.updates == "simultaneous":
    output = gradients(_all_gradients, state)
    new = _apply_gradients(recipe, state, output.grads)
    new = _follow_generator(recipe, new, output.stats, refresh_key)
  else:
    output = gradients(_generator_gradients, state)
    new = _apply_gradients(recipe, state, output.grads)
    new = _follow_generator(recipe, new, output.stats, refresh_key)
    second = gradients(_discriminator_gradients, new)
    new = _apply_gradients(recipe, new, second.grads)
    output = merge(output, second)

  terms, logged = output.metrics["terms"], output.metrics["logged"]
  losses.check_weights(terms, recipe.weights, recipe.ramps)
  norms = {
    f"grad_norm_{k}": optax.tree.norm(g) for k, g in output.grads.items()
  }
  metrics = {**logged, **terms, **norms}
  new = _follow_logits(recipe, new, logged)
  finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
  return _update.guard(finite, new, state), metrics


def _all_gradients(recipe, state, batch, key) -> StepOutput:
  """Gradients of generator and discriminators at one reconstruction."""
  outputs, recons = _generator_outputs(recipe, state, batch, key)
  return merge(outputs, _discriminator_outputs(recipe, state, batch, recons))


def _generator_gradients(recipe, state, batch, key) -> StepOutput:
  return _generator_outputs(recipe, state, batch, key)[0]


def _discriminator_gradients(recipe, state, batch, key) -> StepOutput:
  """Gradients of the discriminators at a reconstruction of their own."""
  recons = {
    one.key: _reconstruct(recipe, one, state.params["gen"], batch, key)[0]
    for one in recipe.present(batch)
  }
  return _discriminator_outputs(recipe, state, batch, recons)


def _reconstruct(recipe, modality, params, batch, key):
  """(reconstruction, Quantized) of the batch's clips or images."""
  key = jax.random.fold_in(key, 1) if modality.prefix else key
  return recipe.module.apply({"params": params}, batch[modality.key], key=key)


def _generator_outputs(
  recipe: Recipe, state: TrainState, batch: Batch, key: Key
) -> tuple[StepOutput, dict[str, Array]]:
  """(gradients of the generator, reconstructions by key of the batch)."""
  outputs, recons = [], {}
  for modality in recipe.present(batch):
    output, recon = _generator_pass(recipe, modality, state, batch, key)
    outputs.append(output)
    recons[modality.key] = recon
  # Reversed, so that rows for restarts ('pick_…') are those of clips.
  return functools.reduce(add_outputs, outputs[::-1]), recons


def _generator_pass(
  recipe: Recipe, modality: Modality, state: TrainState, batch: Batch, key: Key
) -> tuple[StepOutput, Array]:
  """Forward and backward pass of the generator, and its reconstruction."""
  target = batch[modality.key]
  weighted_sum = functools.partial(recipe.weighted_sum, step=state.step)

  def forward(params):
    recon, quantized = _reconstruct(recipe, modality, params, batch, key)
    loss_terms = {k: v for k, v in quantized.aux.items() if k[:5] == "loss_"}
    logged = {k: v for k, v in quantized.aux.items() if k not in loss_terms}
    outputs = recon, modality.named(loss_terms)
    return outputs, (modality.named(logged), quantized.stats)

  (recon, terms), vjp, (logged, stats) = jax.vjp(
    forward, state.params["gen"], has_aux=True
  )

  def reconstruction_loss(recon):
    terms = _reconstruction_terms(recipe, modality, state, target, recon)
    return weighted_sum(terms), terms

  with jax.named_scope("losses"):
    quantizer_loss, term_grads = jax.value_and_grad(weighted_sum)(terms)
    (loss, recon_terms), recon_grad = jax.value_and_grad(
      reconstruction_loss, has_aux=True
    )(recon)
  loss, terms = quantizer_loss + loss, terms | recon_terms

  if modality.discriminator is not None:
    term, fake_grad = _adversarial_term(recipe, modality, state, recon)
    name = f"{modality.prefix}g_adversarial"
    weight = weighted_sum({name: jnp.ones((), jnp.float32)})
    if recipe.adversarial.weight == "adaptive":
      # All of these but the last layer is dead code to the compiler.
      zeros = jax.tree.map(jnp.zeros_like, term_grads)
      at_last_layer = [
        _gan.last_layer(vjp((grad, zeros))[0])
        for grad in (recon_grad, fake_grad)
      ]
      ratio = adversarial.adaptive_weight(*at_last_layer)
      weight *= ratio
      logged |= modality.named({"adaptive_weight": ratio})
    loss, recon_grad = loss + weight * term, recon_grad + weight * fake_grad
    terms |= {name: term}

  (grads,) = vjp((recon_grad, term_grads))
  logged |= modality.named({"loss": loss})
  metrics = {"terms": terms, "logged": logged}
  return StepOutput({"gen": grads}, metrics, stats), recon


def _reconstruction_terms(recipe, modality, state, target, recon):
  """Terms that compare a reconstruction with its clip."""
  terms = {
    name: loss(target, recon)
    for name, loss in reconstruction.LOSSES.items()
    if modality.prefix + name in recipe.weights
  }
  if recipe.perceptual is not None:
    params = state.frozen["perceptual"]
    terms["loss_perceptual"] = recipe.perceptual.loss(params, target, recon)
  return modality.named(terms)


def _adversarial_term(recipe, modality, state, recon) -> tuple[Array, Array]:
  """('g_adversarial', its gradient at the reconstruction), unweighted."""
  discriminator = modality.discriminator_fn(state.params[modality.params_key])
  loss = functools.partial(recipe.adversarial.generator_loss, discriminator)
  with jax.named_scope("discriminator"):
    return jax.value_and_grad(loss)(recon)


def _discriminator_outputs(
  recipe: Recipe, state: TrainState, batch: Batch, recons: Mapping[str, Array]
) -> StepOutput:
  """Gradients of the discriminators at the reconstructions as given."""
  output = StepOutput({}, {"terms": {}, "logged": {}}, {})
  for modality in recipe.present(batch):
    if modality.discriminator is not None:
      pair = batch[modality.key], recons[modality.key]
      output = merge(
        output, _discriminator_pass(recipe, modality, state, *pair)
      )
  return output


def _discriminator_pass(
  recipe: Recipe,
  modality: Modality,
  state: TrainState,
  real: Array,
  fake: Array,
) -> StepOutput:
  """Forward and backward pass of one discriminator."""
  prefix, params_key = modality.prefix, modality.params_key
  named = [name for name in recipe.weights if name.startswith(prefix)]
  wanted = [name.removeprefix(prefix) for name in named]

  def discriminator_loss(params):
    terms, logged = recipe.adversarial.discriminator_terms(
      modality.discriminator_fn(params),
      real,
      fake,
      wanted=wanted,
      averages=state.extra.get("lecam", {}).get(params_key, {}),
      step=state.step,
    )
    terms, logged = modality.named(terms), modality.named(logged)
    return recipe.weighted_sum(terms, state.step), (terms, logged)

  with jax.named_scope("discriminator"):
    (loss, (terms, logged)), grads = jax.value_and_grad(
      discriminator_loss, has_aux=True
    )(state.params[params_key])
  logged |= modality.named({"loss_discriminator": loss})
  return StepOutput({params_key: grads}, {"terms": terms, "logged": logged}, {})


def _apply_gradients(
  recipe: Recipe, state: TrainState, grads: Mapping[str, PyTree]
) -> TrainState:
  """One update of the optimizer for each set of weights with a gradient."""
  params, opt = dict(state.params), dict(state.opt)
  for name, grad in grads.items():
    params[name], opt[name] = _update.apply(
      recipe.tx, grad, opt[name], params[name]
    )
  return state._replace(params=params, opt=opt)


def _follow_generator(
  recipe: Recipe, state: TrainState, stats: PyTree, key: Key
) -> TrainState:
  """Codebook and moving average after an update of the generator."""
  with jax.named_scope("refresh"):
    gen = recipe.module.refresh(state.params["gen"], stats, key)
  decay = optim.ema_decay(step=state.step, **recipe.ema)
  ema = _update.average(state.ema, gen, decay)
  return state._replace(params={**state.params, "gen": gen}, ema=ema)


def _follow_logits(
  recipe: Recipe, state: TrainState, logged: Mapping[str, Array]
) -> TrainState:
  """LeCAM's averages after the mean logits of the whole batch."""
  if "lecam" not in state.extra:
    return state
  averages = dict(state.extra["lecam"])
  for one in recipe.modalities:
    if one.params_key in averages:
      real, fake = (logged[f"{one.prefix}logit_{k}"] for k in _gan.KINDS)
      old = averages[one.params_key]
      averages[one.params_key] = recipe.adversarial.follow(old, real, fake)
  return state._replace(extra={**state.extra, "lecam": averages})


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
  video = _discriminator(discriminator, dtype)
  image = _discriminator(image_discriminator, dtype)
  recipe = Recipe(
    module,
    modalities(video, image),
    weights,
    ramps,
    _optimizer(steps, optim),
    ema,
    _gan.Adversarial(**(adversarial or {})),
    _perceptual(perceptual, dtype),
    param_dtype,
    accumulate,
  )
  return Stage(
    init=functools.partial(init_state, recipe),
    step=functools.partial(train_step, recipe),
    programs=_programs(module),
    context={
      "sizes": tuple(module.quantizer.sizes),
      "latent_shape": module.latent_shape,
    },
    accumulate=accumulate,
  )


def _discriminator(cfg: Mapping[str, Any], dtype: str) -> Any:
  if cfg["name"] == "none":
    return None
  dtype = tokenizers.compute_dtype(dtype)
  return registry.build("discriminators", cfg, dtype=dtype)


def _optimizer(steps: int, cfg: Mapping[str, Any]):
  return optim.make(steps, **cfg)


def _perceptual(cfg: Mapping[str, Any], dtype: str):
  return perceptual.build(cfg, tokenizers.compute_dtype(dtype))


def _programs(module: Tokenizer) -> dict[str, Any]:
  """Programs of a trained state, with the averaged weights."""

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
