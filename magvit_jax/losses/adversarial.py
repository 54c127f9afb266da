"""Adversarial losses, R1, LeCAM and VQGAN's adaptive weight.

Logits have any shape [b …]. Every mean is over the whole batch, also under jit
with a batch that is split over devices.

Pixels are in [-1,1] here and in [0,1] where most weights were published. A
discriminator of x in [-1,1] is one of p = (x + 1) / 2, whose gradient is twice
as long, so a published R1 cost becomes four times as large: 10 becomes 40. The
other losses do not change.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from magvit_jax.types import Array, PyTree

MAX_ADAPTIVE = 1e4


class AdversarialLoss(NamedTuple):
  """A loss of generator and discriminator.

  Attributes:
    generator: (logits of reconstructions) -> scalar.
    discriminator: (logits of real clips, of reconstructions) -> scalar.
    chance: `discriminator` of logits that are all 0, those of a discriminator
      that cannot separate real from fake; positive.
  """

  generator: Callable[[Array], Array]
  discriminator: Callable[[Array, Array], Array]
  chance: float


def generator_non_saturating(fake: Array) -> Array:
  """-log D(fake) = softplus(-logit) (Goodfellow et al., 2014)."""
  return jnp.mean(jax.nn.softplus(-fake))


def discriminator_non_saturating(real: Array, fake: Array) -> Array:
  """-log D(real) - log(1 - D(fake)), not halved."""
  return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_hinge(fake: Array) -> Array:
  """-logit (Lim and Ye, arXiv 1705.02894)."""
  return -jnp.mean(fake)


def discriminator_hinge(real: Array, fake: Array) -> Array:
  """relu(1 - real) + relu(1 + fake), not halved as taming-transformers does."""
  return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


LOSSES = {
  "non_saturating": AdversarialLoss(
    generator_non_saturating, discriminator_non_saturating, 2 * math.log(2)
  ),
  "hinge": AdversarialLoss(generator_hinge, discriminator_hinge, 2.0),
}


def r1(
  discriminator: Callable[[Array], Array], real: Array
) -> tuple[Array, Array]:
  """R1 of Mescheder et al. (arXiv 1801.04406): E |grad_x D(x)|^2, no half.

  The square is summed over the pixels and frames of an example, and averaged
  over examples. Of several logits per example the sum is differentiated, as
  MAGVIT does.

  Args:
    discriminator: real -> logits [b …]; an example's own depend on it alone.
    real: [b t h w 3].

  Returns:
    (the logits, which cost nothing more; the penalty, a float32 scalar).
  """
  logits, pull = jax.vjp(discriminator, real)
  (gradient,) = pull(jnp.ones_like(logits))
  # Of a net in bfloat16 the gradient has its precision; the sum over half a
  # million pixels must not.
  squares = jnp.square(gradient.astype(jnp.float32))
  return logits, jnp.sum(squares) / len(real)


def lecam(
  real: Array, fake: Array, average_real: Array, average_fake: Array
) -> Array:
  """LeCAM (arXiv 2104.03310) of batch means, as MAGVIT's code has it.

  relu(D(x) - a_fake)^2 + relu(a_real - D(y))^2 with D(x), D(y) the means of the
  logits of the batch. (The paper, and Open-MAGVIT2, square each logit's own
  distance and then take the mean.)

  Args:
    real: logits of real clips.
    fake: logits of reconstructions.
    average_real: moving average of the mean of `real`, a scalar.
    average_fake: that of `fake`.
  """
  above = jax.nn.relu(jnp.mean(real) - average_fake)
  below = jax.nn.relu(average_real - jnp.mean(fake))
  return jnp.square(above) + jnp.square(below)


def adaptive_weight(reconstruction: PyTree, generator: PyTree) -> Array:
  """VQGAN's weight of the adversarial loss (arXiv 2012.09841, equation 7).

  |reconstruction| / (|generator| + 1e-4), at most 1e4.

  Args:
    reconstruction: gradient of the weighted reconstruction and perceptual
      losses at the last layer of the decoder.
    generator: gradient of the unweighted adversarial loss there.

  Returns:
    A float32 scalar, which no gradient passes.
  """
  norms = [
    optax.tree.norm(optax.tree.cast(tree, jnp.float32))
    for tree in (reconstruction, generator)
  ]
  ratio = norms[0] / (norms[1] + 1e-4)
  return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, MAX_ADAPTIVE))
