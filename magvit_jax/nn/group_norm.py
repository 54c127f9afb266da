"""Group norms of a whole clip (MAGVIT) and led by the codes (MAGVIT-v2)."""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.nn.norm import standardize
from magvit_jax.types import Array

GROUPS = 32
EPS = 1e-6


def standardize_groups(x: Array, axes: tuple[int, ...]) -> Array:
  """float32 x [b t h w c] with zero mean and unit variance in each group.

  Args:
    x: its channels are cut into 32 groups, or one per channel if fewer.
    axes: what a group spans besides its channels, such as (-3, -2) for height
      and width.

  Raises:
    ValueError: channels that do not divide into the groups.
  """
  c = x.shape[-1]
  groups = min(GROUPS, c)
  if c % groups:
    raise ValueError(
      f"a group norm cannot divide {c} channels into {groups} groups; choose "
      "a width that is a multiple of it"
    )
  y = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, c // groups)
  spans = tuple(axis - 1 for axis in axes)
  return standardize(y, (*spans, -1), EPS).reshape(x.shape)


class ClipGroupNorm(nn.Module):
  """Group norm over time, height and width of a clip: not causal."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    y = standardize_groups(x, (-4, -3, -2))
    return (y * scale + bias).astype(x.dtype)


class AdaptiveNorm(nn.Module):
  """Group norm of a frame, scaled and shifted by the codes of that frame.

  MAGVIT-v2 passes the codes to its decoder this way. As in Open-MAGVIT2 the
  standard deviation of the codes gives the scale and their mean the shift; here
  both are of one latent frame, where the ports take the whole clip and so are
  not causal. Starts as a plain norm.

  Attributes:
    frames: frames of x per latent frame; the first latent frame has one.
  """

  frames: int

  @nn.compact
  def __call__(self, x: Array, codes: Array) -> Array:
    """x [b t h w c] led by its codes [b T H W d]."""
    c = x.shape[-1]
    codes = codes.astype(jnp.float32)
    mean = jnp.mean(codes, (2, 3))
    spread = jnp.mean(jnp.square(codes - mean[:, :, None, None]), (2, 3))
    zeros = nn.initializers.zeros
    scale = nn.Dense(c, kernel_init=zeros, name="scale")(jnp.sqrt(spread + EPS))
    shift = nn.Dense(c, kernel_init=zeros, name="shift")(mean)
    scale, shift = (
      jnp.repeat(s, self.frames, axis=1)[:, -x.shape[1] :, None, None]
      for s in (scale, shift)
    )
    y = standardize_groups(x, (-3, -2))
    return (y * (1.0 + scale) + shift).astype(x.dtype)
