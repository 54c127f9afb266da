"""MAGVIT's 3-D StyleGAN discriminator: one logit for a whole clip.

MAGVIT (2212.05199) halves by average pools, MAGVIT-v2 by a 3-D blur pool.
"""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.discriminators import _stylegan
from magvit_jax.types import Array


class Discriminator(nn.Module):
  """A StyleGAN discriminator of clips.

  Attributes:
    width: channels of the first layer, 64 (B) or 128 (L).
    multipliers: channels of each block over `width`; each block halves time,
      height and width. (2, 4, 4, 4, 4) for 128 pixels, (2, 4, 4, 4) for 64.
    pool: 'average' (MAGVIT) or 'blur' (MAGVIT-v2).
    remat: 'full' keeps the input of each block only for the backward passes,
      of which R1 has two; 'none' and 'dots' keep all.
    dtype: of the convolutions; the logits are float32.
  """

  width: int = 64
  multipliers: tuple[int, ...] = (2, 4, 4, 4, 4)
  pool: str = "average"
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    _stylegan.check(self.pool, self.remat)

  @nn.compact
  def __call__(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1], of one size -> logits [b 1]."""
    net = _stylegan.Net(
      width=self.width,
      multipliers=self.multipliers,
      pool=self.pool,
      remat=self.remat,
      kernel=(3, 3, 3),
      strides=(2, 2, 2),
      dtype=self.dtype,
      name="net",
    )
    return net(video)


TINY = dict(width=8, multipliers=(1, 2))
