"""Norms that never look at another frame, so that causal nets stay causal."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import registry
from magvit_jax.types import Array


class PositionNorm(nn.Module):
  """Layer norm over the channels of each position of [… c].

  It sees no other position, so a frame cut into tiles gives what the whole
  frame gives.
  """

  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    y = standardize(x.astype(jnp.float32), (-1,), self.eps)
    return (y * scale + bias).astype(x.dtype)


class RMSNorm(nn.Module):
  """Divides the channels of each position of [… c] by their root mean square.

  The parameter is the scale minus one, so that 0 leaves sizes alone.
  """

  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
    return root_mean_square(x, scale, self.eps)


class Scale(nn.Module):
  """The parameter of an RMSNorm alone, for what computes it elsewhere."""

  width: int

  @nn.compact
  def __call__(self) -> Array:
    return self.param("scale", nn.initializers.zeros, (self.width,))


class FrameGroupNorm(nn.Module):
  """Group norm over height, width and channels of each frame [b t h w c]."""

  groups: int = 32
  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = x.shape[-1]
    groups = min(self.groups, c)
    if c % groups:
      raise ValueError(
        f"FrameGroupNorm: {c} channels do not divide into {groups} groups; "
        "choose a width that is a multiple of it"
      )
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    y = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, c // groups)
    y = standardize(y, (-4, -3, -1), self.eps).reshape(x.shape)
    return (y * scale + bias).astype(x.dtype)


def root_mean_square(x: Array, scale: Array, eps: float) -> Array:
  """RMSNorm of [… c] by a scale [c], minus one; float32 inside."""
  y = x.astype(jnp.float32)
  y *= jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + eps)
  return (y * (1.0 + scale)).astype(x.dtype)


def standardize(x: Array, axes: tuple[int, ...], eps: float) -> Array:
  """Zero mean and unit variance over `axes`."""
  x = x - jnp.mean(x, axes, keepdims=True)
  return x * jax.lax.rsqrt(jnp.mean(x * x, axes, keepdims=True) + eps)


NORMS = {"frame_group": FrameGroupNorm, "position": PositionNorm}


def make(name: str) -> nn.Module:
  """A norm by its name in a config."""
  registry.check_choice("norm", name, NORMS)
  return NORMS[name]()
