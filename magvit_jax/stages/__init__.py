"""Stages: what the loop trains. Each file defines `make(**args) -> Stage`."""

from collections.abc import Callable
from typing import NamedTuple

from magvit_jax.types import Array, Key, Metrics, PyTree


class TrainState(NamedTuple):
  """Everything a step reads and writes.

  Attributes:
    step: int32 scalar, number of steps taken (applied or not).
    params: nested dict; a GAN's is {'gen': …, 'disc': …}.
    opt: optimizer state of the same outer keys.
    ema: moving average of the generator's params; never aliases them.
    frozen: read-only arrays (a tokenizer, a perceptual network), or {}.
    extra: small running values; 'bad' counts non-finite steps in a row,
      'lecam' has the mean logits {'disc': {'real', 'fake'}} (stages/_gan.py).
  """

  step: Array
  params: PyTree
  opt: PyTree
  ema: PyTree
  frozen: PyTree
  extra: dict[str, Array]


class Stage(NamedTuple):
  """Pure functions that the loop, the verbs and the planner call.

  Attributes:
    init: (key, batch, frozen) -> TrainState.
    step: (state, batch, key) -> (TrainState, metrics). Applied only if every
      term and gradient is finite; `step` advances and extra['bad'] counts
      either way. metrics are float32 scalars.
    programs: 'predict': (state, batch) -> dict of arrays for metrics, and
      what else can be run or planned.
    context: static facts metrics are built with (`sizes` of the ids …).
    accumulate: micro-batches of a step; see stages/_accumulation.py.
  """

  init: Callable[[Key, dict[str, Array], PyTree], TrainState]
  step: Callable[
    [TrainState, dict[str, Array], Key], tuple[TrainState, Metrics]
  ]
  programs: dict[str, Callable[..., dict[str, Array]]]
  context: dict[str, object]
  accumulate: int = 1
