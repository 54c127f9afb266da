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
    eval_clips: clips of the evaluation list; classes take turns.
    on_corrupt: nothing here can be unreadable.
  """

  split: str
  frames: int = 9
  size: tuple[int, int] = (64, 64)
  digits: int = 1
  eval_clips: int = 50
  on_corrupt: str = "raise"

  def __post_init__(self):
    if self.split not in ("train", "eval"):
      raise ValueError(f"split is {self.split!r}; it is 'train' or 'eval'")
    if len(self.size) != 2 or min(self.size) < 16:
      raise ValueError(f"size is {self.size}; both sides are at least 16")
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
      _draw(video, pool[rng.integers(len(pool))], rng)
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


def _draw(video: np.ndarray, digit: np.ndarray, rng) -> None:
  """Draws a digit on its way through `video` [t h w], in place."""
  frames, height, width = video.shape
  side = min(height, width) * 7 // 16
  picture = PIL.Image.fromarray(digit).resize(
    (side, side), PIL.Image.Resampling.BICUBIC
  )
  room = np.array([height - side, width - side])
  start = rng.random(2) * room
  angle = rng.random() * 2 * np.pi
  speed = np.array([np.sin(angle), np.cos(angle)]) * side / 8
  path = start + np.arange(frames)[:, None] * speed
  # Reflection at both walls is a triangle wave of period twice the room.
  path = room - np.abs(path % (2 * room) - room)
  for frame, (top, left) in zip(video, np.rint(path).astype(int), strict=True):
    window = frame[top : top + side, left : left + side]
    np.maximum(window, np.asarray(picture), out=window)
