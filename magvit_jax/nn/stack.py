"""What stacks of layers share: dropout, remat policies, checks of arguments."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import kept
from magvit_jax.types import Array, Key

# What the backward pass keeps of a layer: all of it, what kept.keep was called
# on (products with weights, what attention gives, the choices of dropout) and
# sums, such as the norms' over channels, or the input only.
REMAT = {
  "none": None,
  "dots": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_only_these_names(kept.NAME),
    lambda primitive, *_, **__: primitive.name == "reduce_sum",
  ),
  "full": jax.checkpoint_policies.nothing_saveable,
}


def remat(layer: type[nn.Module], policy: str) -> type[nn.Module]:
  """The layer, for nn.scan, under a policy of REMAT."""
  if policy == "none":
    return layer
  return nn.remat(layer, policy=REMAT[policy], prevent_cse=False)


def drop(x: Array, rate: float, key: Key | None) -> Array:
  """Inverted dropout; the identity without a key or at rate 0."""
  return drops(x.shape, rate, key)[0](x)


def drops(
  shape: tuple[int, ...], rate: float, key: Key | None
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
  """`drop` of each of the two branches of a layer, arrays of one shape.

  One draw serves both, as random bits are dear on a TPU: 16 bits each, to which
  the rate is rounded.
  """
  if key is None or rate == 0.0:
    return (lambda x: x,) * 2
  limit = round(rate * 2**16)
  scale = 1 / (1 - limit / 2**16)
  bits = jax.random.bits(key, shape)

  def branch(own: Array) -> Callable[[Array], Array]:
    stays = kept.keep(own >= limit)
    return lambda x: jnp.where(stays, x * scale, 0.0).astype(x.dtype)

  return branch(bits & 0xFFFF), branch(bits >> 16)


def check(name: str, width: int, heads: int, dropout: float, remat: str):
  """ValueError for arguments of the transformer `name` that do not fit."""
  if width % heads:
    raise ValueError(
      f"{name}: width {width} does not divide into {heads} heads; choose a "
      "width that is a multiple of heads"
    )
  if not 0.0 <= dropout < 1.0:
    raise ValueError(f"{name}: dropout is {dropout}; it must lie in [0, 1)")
  messages.check_choice(f"{name}: remat", remat, REMAT)
