"""StyleGAN discriminator of frames: one logit for each.

The net of stylegan3d without its third dimension, as MaskGIT (2202.04200, with
pool='blur') and the image stage of MAGVIT (2212.05199, 'average') train it.
"""

import flax.linen as nn

from magvit_jax.discriminators import stylegan3d
from magvit_jax.types import Array


class Discriminator(stylegan3d.Discriminator):
  """A StyleGAN discriminator of single frames; each block halves the frame."""

  @nn.compact
  def __call__(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1], of one size -> logits [b t]."""
    b, t, *size = video.shape
    net = self.net((1, 3, 3), (1, 2, 2))
    return net(video.reshape(b * t, 1, *size)).reshape(b, t)


TINY = dict(width=8, multipliers=(1, 2))
