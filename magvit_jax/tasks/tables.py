"""Tables of several tasks, stacked, and applied to each example by gather.

All shapes are static, so one program serves every mixture of tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from magvit_jax import registry
from magvit_jax.tasks import Condition, Tables
from magvit_jax.types import Array

BLACK = -1.0

Region = Callable[[Sequence[int]], np.ndarray]  # of regions.py


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
    seen=np.ones((t, h, w), bool),
    black=np.bool_(False),
    known=np.zeros(tuple(latent_shape[:3]), bool),
    label=np.bool_(False),
  )


def blacked(
  video_shape: Sequence[int], latent_shape: Sequence[int], region: Region
) -> Tables:
  """A region is seen and known, on both grids; the other pixels are black."""
  whole = identity(video_shape, latent_shape)
  return whole._replace(
    seen=region(video_shape),
    known=region(latent_shape),
    black=np.bool_(True),
  )


def edged(
  video_shape: Sequence[int], latent_shape: Sequence[int], region: Region
) -> Tables:
  """A box is seen and known, on both grids; its edges are repeated outwards."""
  return edges(blacked(video_shape, latent_shape, region))


def edges(own: Tables) -> Tables:
  """The same, with the edges of each frame's seen box repeated outwards."""
  return own._replace(
    row=_inside(own.seen.any(axis=2)),
    col=_inside(own.seen.any(axis=1)),
    black=np.bool_(False),
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
  return apply(own, video)


def apply(own: Tables, video: Array) -> Condition:
  """The condition clips of tables that have a row for each example.

  Args:
    own: tables with a leading axis b.
    video: float [b t h w c] in [-1,1].
  """
  blend = own.blend.astype(video.dtype)
  filled = sum(
    _along(video, own.frame[:, i], 1) * blend[:, i, :, None, None, None]
    for i in range(2)
  )
  filled = _along(filled, own.row, 2)
  filled = _along(filled, own.col[:, :, None], 3)
  black = own.black[:, None, None, None, None]
  filled = jnp.where(black, jnp.asarray(BLACK, video.dtype), filled)
  # What is seen is taken as it is: a blend would round it.
  video = jnp.where(own.seen[..., None], video, filled)
  return Condition(video, own.seen, own.known)


def given_frames(tables: Tables) -> int:
  """Frames at the start of a clip that one task gives whole."""
  whole = tables.seen.all(axis=(1, 2))
  return len(whole) if whole.all() else int(np.argmin(whole))


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


def ids_key(name: str) -> str:
  """Where a batch of records keeps the ids of a task's condition clips."""
  return f"ids_{name}"


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


def _inside(seen: np.ndarray) -> np.ndarray:
  """int32 [t n]: the nearest seen place of each, where they lie together."""
  first = seen.argmax(axis=1)[:, None]
  last = first + seen.sum(axis=1)[:, None] - 1
  places = np.arange(seen.shape[1])[None]
  return np.clip(places, first, last).astype(np.int32)


def _along(x: Array, index: Array, axis: int) -> Array:
  """Gathers x [b …] along `axis` by index [b … n], its last axis."""
  index = index.reshape(index.shape + (1,) * (x.ndim - index.ndim))
  return jnp.take_along_axis(x, index, axis=axis)
