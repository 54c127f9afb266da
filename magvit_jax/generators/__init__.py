"""Generators: networks over ids. Each file defines `make(**args) -> Generator`.

`make` takes what the stage owns, `sizes` (ids per factor), `grid` (T, H, W),
`classes` and `tasks` (how many there are of each), and its own config.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from magvit_jax.tasks import TokenCondition
from magvit_jax.types import Array, Key, Metrics, PyTree


class Generator(NamedTuple):
  """Pure functions over ids int32 [b T H W f].

  Attributes:
    init: (key, ids, cond) -> params.
    loss: (params, ids, cond, key) -> (scalar, metrics of float32 scalars).
    sample: (params, cond, key, method) -> ids without a mask id; `method` is a
      frozen dataclass of decoding/, static under jit.
    trace: (params, cond, key, method) -> what each step of `sample` did, the
      last of which is its result: decoding.maskgit.Trace, with positions as
      grids.
    score: (params, ids, cond, key) -> dict of per-example sums [b] for
      evaluation: 'nats' (cross-entropy summed over factors and positions),
      'positions' (how many), and 'scored' [b T H W], the positions.
  """

  init: Callable[[Key, Array, TokenCondition], PyTree]
  loss: Callable[[PyTree, Array, TokenCondition, Key], tuple[Array, Metrics]]
  sample: Callable[[PyTree, TokenCondition, Key, Any], Array]
  trace: Callable[[PyTree, TokenCondition, Key, Any], Any]
  score: Callable[[PyTree, Array, TokenCondition, Key], dict[str, Array]]
