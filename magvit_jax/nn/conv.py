"""Convolutions: causal in time with a memory of the last frames, or centred.

Output frame j of a causal convolution with temporal kernel k and stride s sees
the input frames j*s-(k-1) … j*s; k-1 frames are put before the first one. So
frame 0 depends on itself alone, 1+s*n frames become 1+n, and an image is a
video of one frame (MAGVIT-v2, section 3.2). In chunks the last k-s input frames
are the carry, which is why the kernel may not be shorter than the stride.

How a convolution is computed is chosen in `conv3d`, by platform.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from magvit_jax import messages, sharding
from magvit_jax.nn import conv_frames, pairs, target_platform
from magvit_jax.nn.layer import Carry
from magvit_jax.types import Array, known

PADS = ("zero", "replicate")
WORTH = 10**7  # products per frame and tap, below which compiling costs more

SHORT = 16  # frames, from which on a TPU's compiler would cut time as well

Around = tuple[int, int]  # zeros before and after an axis


def around(kernel: int, stride: int = 1) -> Around:
  """Zeros that centre a kernel, so that n samples become n / stride."""
  zeros = kernel - stride
  return zeros // 2, zeros - zeros // 2


def with_past(x: Array, carry: Carry, past: int, stride: int, pad: str):
  """Puts the past before a chunk.

  Args:
    x: [b t h w c], 1+k*stride frames at the start of a clip, else k*stride.
    carry: the last past+1-stride frames before x, or None at the start.
    past: frames that the first output needs before its own (kernel - 1).
    stride: temporal stride.
    pad: what stands before a clip: 'zero' frames or the first one replicated.

  Returns:
    (frames to convolve without padding, carry for the next chunk).
  """
  frames = x.shape[1]
  if (frames - (carry is None)) % stride:
    rule = "1 + k" if carry is None else "k"
    raise ValueError(
      f"a chunk of {frames} frames does not fit a temporal stride of {stride}: "
      f"it must have {rule} * {stride} frames here"
    )
  if carry is None:
    before = jnp.repeat(x[:, :1], past, axis=1)
    carry = before if pad == "replicate" else jnp.zeros_like(before)
  x = jnp.concatenate([carry, x], axis=1)
  return x, x[:, x.shape[1] - (past + 1 - stride) :]


def patches(x: Array, size: tuple[int, int, int]) -> Array:
  """[b T*pt H*ph W*pw c] -> [b T H W pt*ph*pw*c], blocks of pixels."""
  b, t, h, w, c = x.shape
  pt, ph, pw = size
  x = x.reshape(b, t // pt, pt, h // ph, ph, w // pw, pw, c)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(b, t // pt, h // ph, w // pw, pt * ph * pw * c)


def conv3d(
  x: Array,
  kernel: Array,
  strides: tuple[int, int, int],
  rows: Around = (0, 0),
  columns: Around = (0, 0),
  frames: Around = (0, 0),
) -> Array:
  """Convolves [b t h w c] with [kt kh kw c o], with zeros around it.

  A kernel as large as its stride is a matrix product of patches, which every
  backend runs faster than a convolution. On CPU float32 frames of some size go
  through nn/conv_frames; bfloat16 would round its partial sums, and does not.
  """
  size = kernel.shape[:3]
  if size == tuple(strides):
    return patches(x, size) @ kernel.reshape(-1, kernel.shape[-1])
  work = math.prod(kernel.shape[1:]) * math.prod(x.shape[2:4])
  on_cpu = target_platform.current() == "cpu" and x.dtype == jnp.float32
  if on_cpu and work >= WORTH:
    x = jnp.pad(x, ((0, 0), frames, (0, 0), (0, 0), (0, 0)))
    return conv_frames.convolve(x, kernel, strides, rows, columns)
  order = order_of_axes(x.shape[1] + sum(frames))
  sides = (frames, rows, columns)
  return lax.conv_general_dilated(
    x,
    kernel.transpose(*order, 3, 4),
    [strides[i] for i in order],
    [sides[i] for i in order],
    dimension_numbers=(
      "NDHWC",
      "".join("DHW"[i] for i in order) + "IO",
      "NDHWC",
    ),
  )


def depthwise3d(x: Array, plane: Array, line: Array) -> Array:
  """One filter per channel: `plane` [kh kw c] in space, `line` [kt c] in time.

  Written as shifted sums, which XLA on CPU runs far faster than its grouped
  convolution; separable, because the backward pass of the full kt*kh*kw sum is
  the dearest part of a step there. x [b t h w c] is not padded.
  """
  kh, kw = plane.shape[:2]
  h, w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
  y = sum(
    x[:, :, i : i + h, j : j + w] * plane[i, j]
    for i in range(kh)
    for j in range(kw)
  )
  t = x.shape[1] - len(line) + 1
  return sum(y[:, i : i + t] * line[i] for i in range(len(line)))


def order_of_axes(frames: int) -> tuple[int, int, int]:
  """In which order a convolution of so many frames names its axes.

  On TPU a short time is last: of a small batch the compiler cuts the last axis
  into pieces that join the batch, and copies all frames for that, unless the
  axis is shorter than 16. benchmarks/plan_tokenizer.py shows what that costs.
  A number that is not known, of an export, counts as long.
  """
  on_tpu = target_platform.current() == "tpu"
  short = on_tpu and known(frames) and frames < SHORT
  return (1, 2, 0) if short else (0, 1, 2)


def whole_kernel(layer: nn.Module, shape: tuple[int, ...]) -> Array:
  """The parameter 'kernel' of a layer, cast and gathered; see nn/dense.py."""
  kernel = layer.param("kernel", layer.kernel_init, shape)
  return sharding.gather(kernel.astype(layer.dtype), f"{layer.name}/kernel")


class CausalConv(nn.Module):
  """Convolution over [b t h w c]: causal in time, centred in space.

  Attributes:
    features: channels out.
    kernel: (time, height, width); where it equals the stride, no padding is
      used in space (patches).
    strides: (time, height, width), none longer than the kernel.
    pad: what stands before the first frame, 'zero' or 'replicate'.
    use_bias: adds a bias.
    kernel_init: initializer of the kernel.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel: tuple[int, int, int] = (3, 3, 3)
  strides: tuple[int, int, int] = (1, 1, 1)
  pad: str = "zero"
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    check_pad(self.pad)
    if any(k < s for k, s in zip(self.kernel, self.strides, strict=True)):
      raise ValueError(
        f"CausalConv: kernel {self.kernel} is shorter than strides "
        f"{self.strides}, which would skip pixels; make it at least as long"
      )

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    shape = (*self.kernel, x.shape[-1], self.features)
    kernel = whole_kernel(self, shape)
    x = x.astype(self.dtype)
    past = self.kernel[0] - 1
    x, carry = with_past(x, carry, past, self.strides[0], self.pad)
    _, rows, columns = map(around, self.kernel, self.strides)
    x = conv3d(x, kernel, self.strides, rows, columns)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)
    return x, carry


class Conv(nn.Module):
  """Convolution over [b t h w c], centred in time and space, zeros around it.

  Attributes:
    features: channels out.
    kernel: (time, height, width).
    use_bias: adds a bias.
    kernel_init: initializer of the kernel.
    pairs: 'none', 'both' (x and the result hold frames in pairs, nn/pairs.py)
      or 'out' (the result does; a frame of x stands for two equal ones).
    dtype: of the computation; parameters are float32, and those of frames.
  """

  features: int
  kernel: tuple[int, int, int] = (3, 3, 3)
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  pairs: str = "none"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1] // (2 if self.pairs == "both" else 1)
    shape = (*self.kernel, channels, self.features)
    kernel = whole_kernel(self, shape)
    if self.pairs != "none":
      kernel = pairs.kernel_of_pairs(kernel, paired=self.pairs == "both")
    frames, rows, columns = map(around, kernel.shape[:3])
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    x = conv3d(x, kernel, (1, 1, 1), rows, columns, frames)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      x = x + jnp.tile(bias, x.shape[-1] // len(bias)).astype(self.dtype)
    return x


class CausalDepthwise(nn.Module):
  """A filter per channel, separable into space and time; see `depthwise3d`."""

  kernel: tuple[int, int, int] = (3, 3, 3)
  pad: str = "zero"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    kt, kh, kw = self.kernel
    check_pad(self.pad)
    normal = nn.initializers.normal
    plane = self.param(
      "plane", normal((kh * kw) ** -0.5), (kh, kw, x.shape[-1])
    )
    line = self.param("line", normal(kt**-0.5), (kt, x.shape[-1]))
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    x = x.astype(self.dtype)
    x, carry = with_past(x, carry, kt - 1, 1, self.pad)
    x = jnp.pad(x, ((0, 0), (0, 0), around(kh), around(kw), (0, 0)))
    y = depthwise3d(x, plane.astype(self.dtype), line.astype(self.dtype))
    return y + bias.astype(self.dtype), carry


def check_pad(pad: str) -> None:
  """ValueError for a padding that does not exist."""
  messages.check_choice("pad", pad, PADS)
