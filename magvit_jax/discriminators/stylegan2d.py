"""StyleGAN discriminator of frames: one logit for each.

The net of stylegan3d without its third dimension, as MaskGIT (2202.04200, with
pool='blur') and the image stage of MAGVIT (2212.05199, 'average') train it.
"""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.discriminators.stylegan3d import Net
from magvit_jax.nn import resample
from magvit_jax.tokenizers.levels import check_choice
from magvit_jax.types import Array


class Discriminator(nn.Module):
  """A StyleGAN discriminator of single frames.

  Attributes:
    width: channels of the first layer.
    multipliers: channels of each block over `width`; each halves the frame.
    pool: 'average' or 'blur'.
    dtype: of the convolutions; the logits are float32.
  """

  width: int = 64
  multipliers: tuple[int, ...] = (2, 4, 4, 4, 4)
  pool: str = "average"
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    check_choice("stylegan2d: pool", self.pool, tuple(resample.POOLS))

  @nn.compact
  def __call__(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1], of one size -> logits [b t]."""
    b, t, *size = video.shape
    logits = Net(
      width=self.width,
      multipliers=self.multipliers,
      pool=self.pool,
      kernel=(1, 3, 3),
      strides=(1, 2, 2),
      dtype=self.dtype,
      name="net",
    )(video.reshape(b * t, 1, *size))
    return logits.reshape(b, t)


TINY = dict(width=8, multipliers=(1, 2))
