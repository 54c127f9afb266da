"""Tasks: what of a clip is given. Each file defines a frozen dataclass `Task`.

A task says in `tables(video_shape, latent_shape)`, from the shapes alone, how
its condition clip is filled and which latent positions are condition; stacked
over tasks, the tables let every example of a batch have its own task by
gather, static under jit.
"""

from typing import NamedTuple

import numpy as np

from magvit_jax.types import Array


class Tables(NamedTuple):
  """numpy tables of one task, which make its condition clips (tables.py).

  Attributes:
    frame: int32 [2 t], two source frames of each frame of the filled clip.
    blend: float32 [2 t], their weights, which sum to 1.
    row: int32 [t h], source line of each line.
    col: int32 [t w], source column of each column.
    seen: bool [t h w], pixels that stay as they are.
    black: bool [], whether the others are black (the papers' zero padding)
      rather than taken from their sources.
    known: bool [T H W], latent positions that are condition.
    label: bool [], whether the class is given.
  """

  frame: np.ndarray
  blend: np.ndarray
  row: np.ndarray
  col: np.ndarray
  seen: np.ndarray
  black: np.ndarray
  known: np.ndarray
  label: np.ndarray


class Condition(NamedTuple):
  """A filled condition clip.

  Attributes:
    video: float32 [b t h w c] in [-1,1].
    seen: bool [b t h w], pixels that are the clip's own.
    known: bool [b T H W].
  """

  video: Array
  seen: Array
  known: Array


class TokenCondition(NamedTuple):
  """A condition as a generator takes it.

  Attributes:
    ids: int32 [b T H W f], tokens of the condition clip; read where `known`.
    known: bool [b T H W].
    label: int32 [b]; the number of classes stands for 'not given'.
    task: int32 [b], index of the task.
  """

  ids: Array
  known: Array
  label: Array
  task: Array
