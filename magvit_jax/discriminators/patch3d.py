"""3-D PatchGAN discriminator: a logit for every overlapping block of a video.

Isola et al. (1611.07004) in three dimensions, as Open-MAGVIT2 uses it, with
norms per frame in place of batch norm, so that an example's logits depend on
that example alone.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.nn.norm import FrameGroupNorm
from magvit_jax.types import Array


class Discriminator(nn.Module):
  """Strided 4x4x4 convolutions with leaky relu.

  Attributes:
    width: channels of the first layer, doubled by each further one.
    layers: strided layers; each halves time, height and width.
    dtype: of the convolutions; the logits are float32.
  """

  width: int = 64
  layers: int = 3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1] -> logits [b t' h' w' 1]."""
    x = video.astype(self.dtype)
    for i in range(self.layers):
      x = nn.Conv(self.width * 2**i, (4, 4, 4), (2, 2, 2), dtype=self.dtype)(x)
      if i:
        x = FrameGroupNorm()(x)
      x = jax.nn.leaky_relu(x, 0.2)
    return nn.Conv(1, (3, 3, 3), name="head")(x.astype(jnp.float32))


TINY = dict(width=8, layers=2)
