"""StyleGAN discriminator of frames: one logit for each.

The net of stylegan3d without its third dimension, as MaskGIT (2202.04200, with
pool='blur') and the image stage of MAGVIT (2212.05199, 'average') train it.
"""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.discriminators import _stylegan
from magvit_jax.types import Array


class Discriminator(nn.Module):
  """A StyleGAN discriminator of single frames.

  Attributes:
    width: channels of the first layer.
    multipliers: channels of each block over `width`; each block halves height
      and width.
    pool: 'average' (MAGVIT) or 'blur' (MaskGIT).
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
    """[b t h w 3] in [-1,1], of one size -> logits [b t]."""
    b, t, *size = video.shape
    net = _stylegan.Net(
      width=self.width,
      multipliers=self.multipliers,
      pool=self.pool,
      remat=self.remat,
      kernel=(1, 3, 3),
      strides=(1, 2, 2),
      dtype=self.dtype,
      name="net",
    )
    return net(video.reshape(b * t, 1, *size)).reshape(b, t)


TINY = dict(width=8, multipliers=(1, 2))
