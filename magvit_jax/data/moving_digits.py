"""Handwritten digits bouncing in a frame: labelled data that needs no files.

The digits are the 1,797 of 8x8 pixels that scikit-learn carries (Alpaydin and
Kaynak, 1998), enlarged and moved as in Moving MNIST (Srivastava et al., 2015,
arXiv:1502.04681). Every fifth one of a class is for evaluation.
"""

import dataclasses
import functools

import numpy as np
import PIL.Image
import sklearn.datasets

_HELD_EVERY = 5
_SEED = 20_240_102  # of the fixed list of evaluation clips


@dataclasses.dataclass(frozen=True)
class Source:
  """Bouncing digits.

  Attributes:
    split: 'train' or 'eval'.
    frames: frames of a clip.
    size: (height, width) of a clip, at least 16.
    digits: how many digits share the frame; the first gives the label.
    scale: side of a digit over the shorter side of the frame, in (0, 1); that
      of Moving MNIST is 7/16.
    speed: sides of a digit that it moves per frame, at least 0.
    eval_clips: clips of the evaluation list; classes take turns.
    on_corrupt: nothing here can be unreadable.
  """

  split: str
  frames: int = 9
  size: tuple[int, int] = (64, 64)
  digits: int = 1
  scale: float = 0.4375
  speed: float = 0.125
  eval_clips: int = 50
  on_corrupt: str = "raise"

  def __post_init__(self):
    if self.split not in ("train", "eval"):
      raise ValueError(f"split is {self.split!r}; it is 'train' or 'eval'")
    if len(self.size) != 2 or min(self.size) < 16:
      raise ValueError(f"size is {self.size}; both sides are at least 16")
    if self.speed < 0:
      raise ValueError(f"speed is {self.speed}; it must be 0 or more")
    if not 0 < self.scale < 1:
      raise ValueError(
        f"scale is {self.scale}; a digit takes a share of the frame in (0, 1)"
      )
    if min(self.frames, self.digits, self.eval_clips) < 1:
      raise ValueError(
        f"frames={self.frames}, digits={self.digits} and "
        f"eval_clips={self.eval_clips} are each at least 1"
      )

  @property
  def labels(self) -> tuple[str, ...]:
    """Names of the classes."""
    return tuple(map(str, range(10)))

  @property
  def files(self) -> tuple[str, ...]:
    """One per class that has clips, in the place of files."""
    shown = self.eval_clips if self.split == "eval" else 10
    return self.labels[:shown]

  @property
  def side(self) -> int:
    """Pixels of a digit's side."""
    return max(1, int(min(self.size) * self.scale))

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """(t, h, w, 3) of every clip."""
    return (self.frames, *self.size, 3)

  def __len__(self) -> int:
    if self.split == "eval":
      return self.eval_clips
    return sum(len(pictures) for pictures in _digits("train"))

  def clip(self, i: int, rng: np.random.Generator) -> dict:
    """Clip i: see `magvit_jax.data` for the keys."""
    if self.split == "eval":
      rng = np.random.default_rng((_SEED, i))
    label = i % 10
    video = np.zeros(self.shape[:3], np.uint8)
    for n in range(self.digits):
      kind = label if n == 0 else int(rng.integers(10))
      pool = _digits(self.split)[kind]
      _draw(video, pool[rng.integers(len(pool))], self.side, self.speed, rng)
    video = np.repeat(video[..., None], 3, -1)
    return dict(video=video, label=label, file=label, name=str(label))

  def split_report(self) -> dict[str, dict[str, int]]:
    """Digits of each class on either side of the split."""
    return {
      str(label): {
        split: len(_digits(split)[label]) for split in ("train", "eval")
      }
      for label in range(10)
    }


@functools.cache
def _digits(split: str) -> tuple[np.ndarray, ...]:
  """uint8 [n 8 8] for each class."""
  data = sklearn.datasets.load_digits()
  pictures = np.rint(data.images * (255 / 16)).astype(np.uint8)
  chosen = []
  for label in range(10):
    own = pictures[data.target == label]
    held = np.arange(len(own)) % _HELD_EVERY == 0
    chosen.append(own[held if split == "eval" else ~held])
  return tuple(chosen)


def _draw(
  video: np.ndarray, digit: np.ndarray, side: int, speed: float, rng
) -> None:
  """Draws a digit on its way through `video` [t h w], in place."""
  frames, height, width = video.shape
  picture = PIL.Image.fromarray(digit).resize(
    (side, side), PIL.Image.Resampling.BICUBIC
  )
  room = np.array([height - side, width - side])
  start = rng.random(2) * room
  angle = rng.random() * 2 * np.pi
  step = np.array([np.sin(angle), np.cos(angle)]) * side * speed
  path = start + np.arange(frames)[:, None] * step
  # Reflection at both walls is a triangle wave of period twice the room.
  path = room - np.abs(path % (2 * room) - room)
  for frame, (top, left) in zip(video, np.rint(path).astype(int), strict=True):
    window = frame[top : top + side, left : left + side]
    np.maximum(window, np.asarray(picture), out=window)
