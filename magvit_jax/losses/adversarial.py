"""Adversarial losses of logits of any shape."""

import jax
import jax.numpy as jnp

from magvit_jax.types import Array


def generator_non_saturating(fake: Array) -> Array:
  """-log D(fake) = softplus(-logit) (Goodfellow et al., 2014)."""
  return jnp.mean(jax.nn.softplus(-fake))


def discriminator_non_saturating(real: Array, fake: Array) -> Array:
  """-log D(real) - log(1 - D(fake))."""
  return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
