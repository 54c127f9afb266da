"""Group norms of a whole clip (MAGVIT) and led by the codes (MAGVIT-v2)."""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.nn.norm import group_norm
from magvit_jax.types import Array

EPS = 1e-6


class ClipGroupNorm(nn.Module):
  """Group norm over time, height and width of a clip: not causal.

  Attributes:
    pairs: whether x holds frames in pairs, see nn/pairs.py.
  """

  pairs: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    copies = 2 if self.pairs else 1
    c = x.shape[-1] // copies
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    scale, bias = (jnp.tile(p, copies) for p in (scale, bias))
    return group_norm(x, scale, bias, (-4, -3, -2), copies=copies)


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
    return group_norm(x, 1.0 + scale, shift, (-3, -2))
