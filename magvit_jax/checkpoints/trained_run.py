"""A run opened for use: its stage, its data, its newest averaged weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from magvit_jax import registry
from magvit_jax.checkpoints import checkpointer, frozen_params
from magvit_jax.data import pipeline
from magvit_jax.files import paths, workdirs
from magvit_jax.stages import Stage, TrainState
from magvit_jax.types import Array, PyTree


class Run(NamedTuple):
  """A trained run, opened to be looked at.

  Attributes:
    predict: jitted (state, batch) -> dict of arrays, with the EMA parameters.
    state: what predict reads: `ema`, `frozen` and `extra` are filled.
    source: the clips.
    stage: the stage the run trained.
    step: training step of the parameters.
    config: the resolved config, plain dicts and tuples.
  """

  predict: Callable[[PyTree, dict[str, Array]], dict[str, Array]]
  state: TrainState
  source: Any
  stage: Stage
  step: int
  config: dict[str, Any]


def open_run(
  folder: paths.Name,
  *,
  split: str = "eval",
  step: int | None = None,
  **data: Any,
) -> Run:
  """Rebuilds stage and source of a workdir and restores its EMA parameters.

  Args:
    folder: workdir of a run.
    split: 'eval' or 'train'.
    step: which checkpoint; None is the newest.
    **data: changes to the source's config, such as root or eval_clips.

  Raises:
    OSError: no config, no checkpoint, or no clips there.
    TypeError: a change the source does not take.
  """
  config = registry.plain(workdirs.read_config(folder)["config"])
  with workdirs.blaming(folder):
    stage = registry.build(
      "stages",
      config["stage"],
      steps=config["steps"],
      **frozen_params.stage_args(config),
    )
    source_config = {**config["data"], **data}
  source = registry.build("data", source_config, split=split)
  abstract = abstract_state(stage, source)
  step, ema = _newest_ema(folder, abstract.ema, step)
  extra = checkpointer.load_params(folder, abstract.extra, "extra", step)
  arrays = frozen_params.restore(folder, config)
  state = TrainState(np.int32(step), {}, {}, ema, arrays, extra)
  predict = jax.jit(stage.programs["predict"])
  return Run(predict, state, source, stage, step, config)


def _newest_ema(
  folder: paths.Name, abstract: PyTree, step: int | None
) -> tuple[int, PyTree]:
  """The EMA of a step, or of the newest whole checkpoint, with its step."""
  steps = checkpointer.steps(folder)[::-1] if step is None else [step]
  if not steps:
    raise FileNotFoundError(
      f"{folder} holds no checkpoint yet; train first, or wait for the step "
      "checkpoint.every of its config"
    )
  for step in steps:
    try:
      return step, checkpointer.load_params(folder, abstract, step=step)
    except OSError:
      if step == steps[-1]:
        raise
  raise AssertionError("unreachable: the last step returns or raises")


def abstract_state(stage: Stage, source: Any) -> TrainState:
  """Shapes of the state without `frozen`, found without computing anything."""
  one = {"label": np.int32, "file": np.int32, "valid": np.bool_}
  batch = {k: jax.ShapeDtypeStruct((1,), dtype) for k, dtype in one.items()}
  for name, zeros in pipeline.blank(source).items():
    kind = np.float32 if name == "video" else np.int32
    batch[name] = jax.ShapeDtypeStruct((1, *zeros.shape), kind)
  return jax.eval_shape(stage.init, jax.random.key(0), batch, {})
