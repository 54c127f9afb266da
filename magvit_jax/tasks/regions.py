"""Parts of a clip: bool [t h w] of a shape, the same on pixels and on latents.

MAGVIT (arXiv:2212.05199) draws the region of a task on the grid of pixels and
again on the grid of latents, rather than pooling the one into the other; where
it moves, the two agree only roughly, and the transformer refines the rest.
"""

from collections.abc import Sequence

import numpy as np

Shape = Sequence[int]


def central(shape: Shape) -> np.ndarray:
  """The middle half of the lines and of the columns."""
  return horizontal(shape) & vertical(shape)


def horizontal(shape: Shape) -> np.ndarray:
  """The middle half of the lines."""
  t, h, w = shape[:3]
  line = np.arange(h)[:, None]
  return np.tile((h // 4 <= line) & (line < h * 3 // 4), (t, 1, w))


def vertical(shape: Shape) -> np.ndarray:
  """The middle half of the columns."""
  t, h, w = shape[:3]
  place = np.arange(w)
  return np.tile((w // 4 <= place) & (place < w * 3 // 4), (t, h, 1))


def sliding(shape: Shape) -> np.ndarray:
  """Half of the columns, from the left edge at first to the right at last."""
  t, h, w = shape[:3]
  left = np.round(np.linspace(0, w // 2, t)).astype(int)[:, None, None]
  place = np.arange(w)
  return np.tile((left <= place) & (place < left + w // 2), (1, h, 1))


def around_central(shape: Shape) -> np.ndarray:
  """All but `central`."""
  return ~central(shape)


def around_sliding(shape: Shape) -> np.ndarray:
  """All but the middle half of the lines of `sliding`."""
  return ~(sliding(shape) & horizontal(shape))


def spans(frames: int, latents: int) -> tuple[np.ndarray, np.ndarray]:
  """First frame of each latent frame, and the one after its last.

  They are equal parts, or after a single first frame, as a causal tokenizer
  has it. Where both could be (9 frames in 3), an odd number of frames is taken
  as causal: strides over time are powers of two.

  Raises:
    ValueError: frames that are divided in neither way.
  """
  rest = max(latents - 1, 1)
  equal = frames % latents == 0
  causal = latents > 1 and (frames - 1) % rest == 0
  if not equal and not causal:
    raise ValueError(
      f"{frames} frames cannot be shared among {latents} latent frames: "
      "either k * stride or 1 + k * stride frames make a clip"
    )
  if equal and (not causal or frames % 2 == 0):
    stop = np.arange(1, latents + 1) * (frames // latents)
  else:
    stop = 1 + np.arange(latents) * ((frames - 1) // rest)
  return np.concatenate([[0], stop[:-1]]), stop


def touched(
  frames: np.ndarray, video_shape: Shape, latent_shape: Shape
) -> np.ndarray:
  """bool [T H W]: latent frames that hold one of the frames bool [t]."""
  spread = np.broadcast_to(frames[:, None, None], video_shape[:3])
  return pooled(spread, video_shape, latent_shape, np.any)


def covered(
  seen: np.ndarray, video_shape: Shape, latent_shape: Shape
) -> np.ndarray:
  """bool [T H W]: latents of which every pixel of `seen` [t h w] is true."""
  return pooled(seen, video_shape, latent_shape, np.all)


def pooled(seen, video_shape, latent_shape, over) -> np.ndarray:
  """`over` (np.all or np.any) the pixels of each latent: bool [T H W].

  Raises:
    ValueError: pixels that the latent grid does not divide.
  """
  (t, h, w), (tall, high, wide) = video_shape[:3], latent_shape[:3]
  if h % high or w % wide:
    raise ValueError(
      f"pictures of {h}x{w} are not divided by {high}x{wide} latents; give "
      "clips that the tokenizer's strides divide"
    )
  start, stop = spans(t, tall)
  boxes = np.asarray(seen).reshape(t, high, h // high, wide, w // wide)
  boxes = over(boxes, axis=(2, 4))
  return np.stack(
    [over(boxes[a:b], axis=0) for a, b in zip(start, stop, strict=True)]
  )
