"""2-D to 3-D inflation: what a video net takes over from an image net.

An image tokenizer whose kernels see one frame, [1 kh kw i o], becomes a video
tokenizer of kernels [kt kh kw i o]: the image's kernel goes to one place in
time and zeros to the others, so that training starts from a net that codes
frames as the image net did.

- `central`, at kt // 2: MAGVIT (2212.05199, section 3.1), for convolutions
  centred in time. There `average`, a share of 1 / kt at each place, was worse
  (rFVD 103 against 58).
- `last`, at kt - 1: MAGVIT-v2 (2310.05737, section 3.2), for causal ones. What
  stands before the first frame meets zeros, so that an image is coded exactly
  as before; in the central place each convolution would be late by a frame, and
  lose frame 0.

A convolution before depth to space has the channels of every frame it makes,
and each of these gets the image's.
"""

import numpy as np

# Places by whether time is causal.
CHOICES = {True: ("last",), False: ("central", "average")}
REASONS = {
  True: "central and average mix in what stands before a clip, and frame 0 is "
  "lost",
  False: "last would read every frame one late, convolution by convolution",
}


def taps(size: int, how: str) -> np.ndarray:
  """Shares of a 2-D kernel at each of `size` places in time, float32 [size]."""
  if how == "average":
    return np.full(size, 1 / size, np.float32)
  place = {"central": size // 2, "last": size - 1}[how]
  return (np.arange(size) == place).astype(np.float32)


def fits(flat: tuple[int, ...], shape: tuple[int, ...], how: str) -> bool:
  """Whether a leaf of shape `flat` inflates to `shape`.

  Time, the first axis of a kernel or of a filter over time, may grow from 1,
  and under `last` the channels of convolutions and of biases by a whole factor.
  """
  if flat == shape:
    return True
  if len(flat) != len(shape) or not flat:
    return False
  frames = len(flat) == 1 or flat[0] in (1, shape[0])
  unfolded = how == "last" and len(flat) in (1, 5)
  channels = flat[-1] == shape[-1] or (unfolded and not shape[-1] % flat[-1])
  return frames and flat[1:-1] == shape[1:-1] and channels


def inflate(leaf: np.ndarray, shape: tuple[int, ...], how: str) -> np.ndarray:
  """A leaf of an image net as the video net has it.

  Args:
    leaf: a kernel [1 kh kw i o], a filter over time [1 c], or any leaf that
      has the same shape in both.
    shape: of the video net's leaf; see `fits`.
    how: 'central', 'average' or 'last'.

  Returns:
    An array of `shape`.
  """
  if leaf.shape == shape:
    return leaf
  if leaf.ndim > 1 and leaf.shape[0] != shape[0]:
    share = taps(shape[0], how).reshape(-1, *[1] * (leaf.ndim - 1))
    leaf = leaf * share
  copies = shape[-1] // leaf.shape[-1]
  return np.tile(leaf, (*[1] * (leaf.ndim - 1), copies))
