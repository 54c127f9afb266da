"""Tables of several tasks, stacked, and applied to each example by gather.

All shapes are static, so one program serves every mixture of tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from magvit_jax import registry
from magvit_jax.tasks import Condition, Tables
from magvit_jax.types import Array

BLACK = -1.0


def identity(video_shape: Sequence[int], latent_shape: Sequence[int]) -> Tables:
  """Every pixel is seen and stays, no latent is known, no label is given.

  Args:
    video_shape: (t, h, w, …).
    latent_shape: (T, H, W, …).
  """
  t, h, w = video_shape[:3]
  frame = np.arange(t, dtype=np.int32)
  return Tables(
    frame=np.stack([frame, frame]),
    blend=np.stack([np.ones(t), np.zeros(t)]).astype(np.float32),
    row=np.tile(np.arange(h, dtype=np.int32), (t, 1)),
    col=np.tile(np.arange(w, dtype=np.int32), (t, 1)),
    fill=np.float32(BLACK),
    box=np.tile(np.array([0, 0, h, w], np.int32), (t, 1)),
    invert=np.bool_(False),
    known=np.zeros(tuple(latent_shape[:3]), bool),
    label=np.bool_(False),
  )


def build(
  tasks: Mapping[str, Mapping[str, Any]],
  video_shape: Sequence[int],
  latent_shape: Sequence[int],
) -> dict[str, Tables]:
  """Tables of each task of a config, in alphabetical order of the keys.

  Args:
    tasks: for each task its arguments; a key `name` says which component it
      is where the key does not, a key `weight` is not for the task.
    video_shape: (t, h, w, …).
    latent_shape: (T, H, W, …).

  Raises:
    KeyError, TypeError: no such task or argument.
    ValueError: no task, or one that does not fit the shapes.
  """
  if not tasks:
    raise ValueError(
      "stage.tasks is empty; name at least one of "
      f"{', '.join(registry.names('tasks'))}"
    )
  out = {}
  for key in sorted(tasks):
    args = {k: v for k, v in tasks[key].items() if k != "weight"}
    task = registry.build("tasks", {"name": key, **args})
    out[key] = task.tables(tuple(video_shape), tuple(latent_shape))
  return out


def stack(tables: Sequence[Tables]) -> Tables:
  """Tables with a leading axis over tasks."""
  return Tables(*(np.stack(rows) for rows in zip(*tables, strict=True)))


def condition(tables: Tables, task: Array, video: Array) -> Condition:
  """Each example's condition clip, by the tables of its own task.

  Args:
    tables: stacked over tasks.
    task: int32 [b], index of each example's task.
    video: float [b t h w c] in [-1,1].
  """
  own = Tables(*(jnp.asarray(table)[task] for table in tables))
  blend = own.blend.astype(video.dtype)
  filled = sum(
    _along(video, own.frame[:, i], 1) * blend[:, i, :, None, None, None]
    for i in range(2)
  )
  # Where a line is left out, so that only some of its columns are filled, the
  # others are its own.
  row = jnp.where(own.row < 0, np.arange(video.shape[2]), own.row)
  col = jnp.where(own.col < 0, np.arange(video.shape[3]), own.col)
  filled = _along(filled, row, 2)
  filled = _along(filled, col[:, :, None], 3)
  row, col = own.row[..., :, None] < 0, own.col[..., None, :] < 0
  # What is left out is a frame around a box, or with `invert` the box itself.
  invert = own.invert[:, None, None, None]
  hole = jnp.where(invert, row & col, row | col)[..., None]
  fill = own.fill.astype(video.dtype)[:, None, None, None, None]
  return Condition(jnp.where(hole, fill, filled), seen(own, video), own.known)


def seen(own: Tables, video: Array) -> Array:
  """bool [b t h w]: the pixels that tables [b …] leave as they are."""
  line = np.arange(video.shape[2])[:, None]
  place = np.arange(video.shape[3])
  top, left, bottom, right = (own.box[..., i, None, None] for i in range(4))
  inside = (top <= line) & (line < bottom) & (left <= place) & (place < right)
  return inside != own.invert[:, None, None, None]


def given_frames(tables: Tables) -> int:
  """Frames at the start of a clip that one task gives whole."""
  t, h, w = tables.frame.shape[1], tables.row.shape[1], tables.col.shape[1]
  whole = (tables.box == np.array([0, 0, h, w])).all(-1)
  whole &= not tables.invert
  return t if whole.all() else int(np.argmin(whole))


def from_prefix(tables: Tables, stride: int) -> bool:
  """Whether a causal tokenizer finds the known ids in the clip's own ids.

  Latent frame k of a causal tokenizer sees frames 0 … k * stride: where those
  are given whole, its ids are those of the whole clip, and no condition clip
  needs to be encoded.
  """
  frames = np.flatnonzero(tables.known.any(axis=(1, 2)))
  if not frames.size:
    return True
  return bool(given_frames(tables) > frames[-1] * stride)


def check_causal(name: str, tables: Tables, stride: int) -> None:
  """ValueError where given frames end inside a token of a causal tokenizer."""
  frames = given_frames(tables)
  total = tables.frame.shape[1]
  if frames in (0, total) or (frames - 1) % stride == 0:
    return
  fits = ", ".join(map(str, range(1, total, stride)))
  raise ValueError(
    f"stage.tasks.{name} gives {frames} frames, which end inside a token: "
    f"the tokenizer puts the first frame into one and {stride} frames into "
    f"each later one; give one of {fits}"
  )


def _along(x: Array, index: Array, axis: int) -> Array:
  """Gathers x [b …] along `axis` by index [b … n], its last axis."""
  index = index.reshape(index.shape + (1,) * (x.ndim - index.ndim))
  return jnp.take_along_axis(x, index, axis=axis)
