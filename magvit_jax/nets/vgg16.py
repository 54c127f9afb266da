"""VGG-16 (Simonyan and Zisserman, arXiv 1409.1556), up to its last ReLU.

The layers of torchvision's `vgg16`, whose features LPIPS reads after the last
ReLU before each pool.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from magvit_jax.types import Array

DEPTHS = (2, 2, 3, 3, 3)  # convolutions before each pool
LEAST = 2 ** (len(DEPTHS) - 1)  # pixels that the pools leave one of
# ImageNet's mean and deviation for pixels in [-1,1].
SHIFT = np.float32((-0.030, -0.088, -0.188))
SCALE = np.float32((0.458, 0.448, 0.450))


class Net(nn.Module):
  """The features of five depths.

  Attributes:
    widths: channels of the five depths.
    dtype: of the convolutions.
  """

  widths: tuple[int, ...] = (64, 128, 256, 512, 512)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, frames: Array) -> dict[str, Array]:
    """Features of frames.

    Args:
      frames: [n h w 3] in [-1,1].

    Returns:
      {'relu1_2': [n h w c], 'relu2_2': [n h/2 w/2 c] … 'relu5_3'} in `dtype`.

    Raises:
      ValueError: frames of fewer than 16 lines or columns.
    """
    if min(frames.shape[1:3]) < LEAST:
      raise ValueError(
        f"vgg16: frames of {frames.shape[1]}x{frames.shape[2]} pixels; its "
        f"pools need at least {LEAST}x{LEAST}"
      )
    x, found = (frames - SHIFT) / SCALE, {}
    for i, (depth, width) in enumerate(
      zip(DEPTHS, self.widths, strict=True), 1
    ):
      if i > 1:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for j in range(1, depth + 1):
        name = f"conv{i}_{j}"
        conv = nn.Conv(width, (3, 3), padding=1, dtype=self.dtype, name=name)
        x = nn.relu(conv(x))
      found[f"relu{i}_{depth}"] = x
    return found


TINY = dict(widths=(2, 3, 4, 5, 6))
