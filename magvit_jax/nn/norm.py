"""Norms that never look at another frame, so that causal nets stay causal."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from magvit_jax import messages
from magvit_jax.types import Array

MOMENTS = "moments"  # their name for jax.checkpoint: small, and dear to make


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
    y = standardize(x.astype(jnp.float32), self.eps)
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
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    return group_norm(
      x, scale, bias, (-3, -2), groups=self.groups, eps=self.eps
    )


def root_mean_square(x: Array, scale: Array, eps: float) -> Array:
  """RMSNorm of [… c] by a scale [c], minus one; float32 inside."""
  y = x.astype(jnp.float32)
  y *= jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + eps)
  return (y * (1.0 + scale)).astype(x.dtype)


def standardize(x: Array, eps: float) -> Array:
  """Zero mean and unit variance over the last axis.

  `jax.nn.standardize(algorithm='stable')` gives the same numbers; subtracting
  the mean twice, it costs a TPU 2 % more elementwise cycles in
  `plan --config=tokenizer/clips:smoke --topology=v5e:1x1`.
  """
  x = x - jnp.mean(x, -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)


def group_norm(
  x: Array,
  scale: Array,
  bias: Array,
  axes: tuple[int, ...],
  *,
  groups: int = 32,
  eps: float = 1e-6,
  copies: int = 1,
) -> Array:
  """Group norm of x [b t h w c] by scale and bias [… c], of the dtype of x.

  Everything but one product and two sums a pixel happens to the moments of
  channels, [b 1 1 1 c] or so: on a TPU channels lie along the lanes, and
  cutting the pixels themselves into groups would move all of them. One pass
  over x gives both moments; they are taken about the first pixel, as the square
  of a large mean would drown the variance.

  Args:
    x: its channels are cut into groups, or one per channel if fewer.
    scale: factor of what has zero mean and unit variance.
    bias: added to that.
    axes: what a group spans besides its channels, such as (-3, -2) for height
      and width.
    groups: how many.
    eps: added to the variance.
    copies: frames that lie side by side in the channels (nn/pairs.py).

  Raises:
    ValueError: channels that do not divide into the groups.
  """
  c = x.shape[-1] // copies
  groups = min(groups, c)
  if c % groups:
    raise ValueError(
      f"a group norm cannot divide {c} channels into {groups} groups; choose "
      "a width that is a multiple of it"
    )
  origin = x
  for axis in axes:
    origin = jax.lax.slice_in_dim(origin, 0, 1, axis=axis)
  origin = jax.lax.stop_gradient(origin).astype(jnp.float32)
  near = x.astype(jnp.float32) - origin
  mean = jnp.mean(near, axes, keepdims=True)
  square = jnp.mean(near * near, axes, keepdims=True)
  mean, square = (checkpoint_name(m, MOMENTS) for m in (mean, square))
  centre = _over_groups(mean + origin, copies, groups)
  shift = mean + origin - centre
  variance = jnp.maximum(square - mean * mean, 0.0) + shift * shift
  factor = scale * jax.lax.rsqrt(_over_groups(variance, copies, groups) + eps)
  offset = bias + (origin - centre) * factor
  # Else XLA sums the pixels anew for the gradient of the bias.
  factor, offset = jax.lax.optimization_barrier((factor, offset))
  return (near * factor + offset).astype(x.dtype)


def _over_groups(x: Array, copies: int, groups: int) -> Array:
  """Each channel's value [… c] replaced by the mean of its group."""
  y = x.reshape(*x.shape[:-1], copies, groups, -1)
  mean = jnp.mean(y, (-3, -1), keepdims=True)
  return jnp.broadcast_to(mean, y.shape).reshape(x.shape)


NORMS = {"frame_group": FrameGroupNorm, "position": PositionNorm}


def make(name: str) -> nn.Module:
  """A norm by its name in a config."""
  messages.check_choice("norm", name, NORMS)
  return NORMS[name]()
