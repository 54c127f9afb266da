"""Attention between the positions of a frame, a layer of convolutional nets."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.nn.attention import attend
from magvit_jax.nn.layer import Carry
from magvit_jax.types import Array

Norm = Callable[..., nn.Module]


def projections(x: Array, norm: Norm, dtype: jnp.dtype) -> list[Array]:
  """Queries, keys and values of a norm of x, inside a module."""
  x = norm(name="norm")(x)
  return [nn.Dense(x.shape[-1], dtype=dtype, name=name)(x) for name in "qkv"]


class FrameAttention(nn.Module):
  """One head of attention between all positions of a frame, added to it.

  Attributes:
    norm: builds the norm of x [b t h w c] that is looked at, by its `name`.
    dtype: of the computation.
  """

  norm: Norm
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    b, t, h, w, c = x.shape
    q, k, v = (
      y.reshape(b * t, h * w, 1, c)
      for y in projections(x, self.norm, self.dtype)
    )
    y = attend(q, k, v).reshape(x.shape)
    return x + nn.Dense(c, dtype=self.dtype, name="project")(y), ()
