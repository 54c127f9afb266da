"""The recipe of the tokenizer stage: what a step reads, and its first state."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from magvit_jax import losses, messages
from magvit_jax.losses.perceptual import Perceptual
from magvit_jax.stages import TrainState, _gan, _update
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Modality:
  """Clips or images: what of a batch is reconstructed.

  Attributes:
    key: of the batch.
    prefix: of the names of its terms and metrics.
    params_key: of the params and the optimizer of its discriminator.
    discriminator: its discriminator, or None.
  """

  key: str
  prefix: str
  params_key: str
  discriminator: Any

  def named(self, values: Mapping[str, Array]) -> dict[str, Array]:
    """Values under their names with the prefix."""
    return {self.prefix + name: value for name, value in values.items()}

  def discriminator_fn(self, params: PyTree) -> _gan.Discriminator:
    """The discriminator as a function: video -> logits."""
    return functools.partial(self.discriminator.apply, {"params": params})


@dataclasses.dataclass(frozen=True)
class Recipe:
  """All that a step reads and no step changes.

  Attributes:
    module: the tokenizer.
    modalities: clips, images.
    weights: of each loss term.
    ramps: factors of terms by step; see `losses.ramp`.
    tx: the optimizer, of generator and discriminators alike.
    ema: arguments of `optim.ema_decay`.
    adversarial: the adversarial losses and their updates.
    perceptual: of losses/perceptual.py, or None.
    param_dtype: of the weights a step computes with.
    accumulate: micro-batches of a step.
  """

  module: Tokenizer
  modalities: tuple[Modality, ...]
  weights: Mapping[str, float]
  ramps: Mapping[str, Mapping[str, Any]]
  tx: optax.GradientTransformation
  ema: Mapping[str, Any]
  adversarial: _gan.Adversarial = _gan.Adversarial()
  perceptual: Perceptual | None = None
  param_dtype: str = "float32"
  accumulate: int = 1

  def __post_init__(self):
    messages.check_choice(
      "stage.param_dtype", self.param_dtype, _update.PARAM_DTYPES
    )

  def present(self, batch: Batch) -> list[Modality]:
    """The modalities of a batch."""
    return [one for one in self.modalities if one.key in batch]

  def weighted_sum(self, terms: Mapping[str, Array], step: Array) -> Array:
    """sum over terms of weight * ramp(step) * term."""
    return losses.weighted_sum(terms, self.weights, self.ramps, step)


def modalities(
  discriminator: Any, image_discriminator: Any = None
) -> tuple[Modality, Modality]:
  """Clips and images, each with its discriminator or None."""
  return (
    Modality("video", "", "disc", discriminator),
    Modality("image", "image_", "disc_image", image_discriminator),
  )


def init_state(
  recipe: Recipe, key: Key, batch: Batch, frozen: PyTree
) -> TrainState:
  """A fresh state; the shapes come from the batch's 'video' and 'image'."""
  gen_key, disc_key = jax.random.split(key)
  variables = recipe.module.init(gen_key, batch["video"][:1])
  params = {"gen": variables.get("params", {})}
  averages = {}
  for one in recipe.present(batch):
    if one.discriminator is None:
      continue
    own = jax.random.fold_in(disc_key, 1) if one.prefix else disc_key
    variables = one.discriminator.init(own, batch[one.key][:1])
    params[one.params_key] = variables["params"]
    if f"{one.prefix}d_lecam" in recipe.weights:
      averages[one.params_key] = _gan.start_averages()
  extra = {"bad": jnp.zeros((), jnp.int32)}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt={name: recipe.tx.init(p) for name, p in params.items()},
    ema=jax.tree.map(jnp.copy, params["gen"]),
    frozen=frozen,
    extra={**extra, "lecam": averages} if averages else extra,
  )


def check_images(recipe: Recipe, batch: Batch) -> None:
  """KeyError for images without losses, and for losses without images."""
  images = recipe.modalities[1]
  weighted = any(name.startswith(images.prefix) for name in recipe.weights)
  if images.key in batch and not weighted:
    raise KeyError(
      "the batch has images, and no loss of them has a weight; add "
      "'image_loss_l2' and the like to stage.weights, or give no images"
    )
  if images.key not in batch and (weighted or images.discriminator is not None):
    raise KeyError(
      "stage.weights has terms 'image_…' or stage.image_discriminator a "
      "name, and the batch has no images; give the run images, or remove "
      "these weights and use the name 'none'"
    )
