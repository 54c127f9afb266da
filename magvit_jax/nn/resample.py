"""Up-sampling by depth to space, causal in time."""

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.nn.conv import CausalConv
from magvit_jax.nn.layer import Carry
from magvit_jax.types import Array


def depth_to_space(x: Array, size: tuple[int, int, int]) -> Array:
  """[b T H W pt*ph*pw*c] -> [b T*pt H*ph W*pw c], the inverse of patches."""
  b, t, h, w, d = x.shape
  pt, ph, pw = size
  c = d // (pt * ph * pw)
  x = x.reshape(b, t, h, w, pt, ph, pw, c).transpose(0, 1, 4, 2, 5, 3, 6, 7)
  return x.reshape(b, t * pt, h * ph, w * pw, c)


class CausalUpsample(nn.Module):
  """Convolution to more channels, then depth to space.

  The first frame of a clip stands for itself alone, so of its copies in time
  all but the last are dropped: 1+n frames become 1+n*s (MAGVIT-v2).
  """

  features: int
  strides: tuple[int, int, int]
  kernel: tuple[int, int, int] = (3, 3, 3)
  pad: str = "zero"
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    st, sh, sw = self.strides
    start = carry is None
    x, carry = CausalConv(
      self.features * st * sh * sw,
      kernel=self.kernel,
      pad=self.pad,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name="conv",
    )(x, carry)
    x = depth_to_space(x, self.strides)
    return (x[:, st - 1 :] if start else x), carry
