"""ResNet-50 (He et al., arXiv 1512.03385), the classifier of ImageNet.

The stride of a bottleneck is in its 3x3 convolution. Batch norms are folded
into the convolutions before them (`fold`), which is exact: the weights are
frozen.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from magvit_jax import messages
from magvit_jax.types import Array

ORIGINS = ("torchvision", "flax")
# ImageNet's mean and deviation for pixels in [0,1].
MEAN = np.float32((0.485, 0.456, 0.406))
STD = np.float32((0.229, 0.224, 0.225))


def fold(
  kernel: np.ndarray,
  scale: np.ndarray,
  bias: np.ndarray,
  mean: np.ndarray,
  var: np.ndarray,
  eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray]:
  """(kernel, bias) of a convolution without bias and its batch norm.

  Args:
    kernel: [… o], of the convolution.
    scale, bias, mean, var: [o], of the norm.
    eps: that is added to the variance, the same in both origins.
  """
  gain = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + eps)
  return np.float32(kernel * gain), np.float32(bias - mean * gain)


class Net(nn.Module):
  """The logits of 1,000 classes.

  Attributes:
    origin: whose weights these are. 'torchvision' scales pixels by ImageNet's
      mean and deviation and pads both sides alike; 'flax', the ResNet of
      MaskGIT and MAGVIT, takes pixels in [0,1], pads like TensorFlow, more at
      the end, and has no ReLU after its first convolution.
    blocks: bottlenecks of each of the stages.
    width: channels of the first stage, before the fourfold of its output.
    classes: number of logits.
    dtype: of the convolutions; the mean and the last layer are float32.
  """

  origin: str = "torchvision"
  blocks: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  classes: int = 1000
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, frames: Array) -> Array:
    """float32 logits [n classes] of frames [n h w 3] in [-1,1]."""
    messages.check_choice("resnet50.origin", self.origin, ORIGINS)
    x = (frames + 1) / 2
    if self.origin == "torchvision":
      x = (x - MEAN) / STD
    conv = nn.Conv(
      self.width, (7, 7), 2, self._pads(7), dtype=self.dtype, name="stem"
    )
    x = conv(x)
    if self.origin == "torchvision":
      x = nn.relu(x)
    x = nn.max_pool(x, (3, 3), (2, 2), self._pads(3))
    for i, count in enumerate(self.blocks):
      for j in range(count):
        x = Bottleneck(
          self.width * 2**i,
          stride=2 if i > 0 and j == 0 else 1,
          pads=self._pads(3),
          dtype=self.dtype,
          name=f"stage{i + 1}_block{j + 1}",
        )(x)
    x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.classes, name="head")(x)

  def _pads(self, kernel: int) -> str | tuple[tuple[int, int], ...]:
    sides = (kernel // 2, kernel // 2)
    return "SAME" if self.origin == "flax" else (sides, sides)


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions around which the input is added."""

  width: int
  stride: int
  pads: str | tuple[tuple[int, int], ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def conv(width, kernel, stride, pads, name):
      size = (kernel, kernel)
      return nn.Conv(width, size, stride, pads, dtype=self.dtype, name=name)

    y = nn.relu(conv(self.width, 1, 1, "VALID", "conv1")(x))
    y = nn.relu(conv(self.width, 3, self.stride, self.pads, "conv2")(y))
    y = conv(4 * self.width, 1, 1, "VALID", "conv3")(y)
    if x.shape != y.shape:
      x = conv(4 * self.width, 1, self.stride, "VALID", "shortcut")(x)
    return nn.relu(x + y)


TINY = dict(blocks=(1, 2), width=4, classes=5)
