"""Measure a predictor on the fixed list of clips of a source.

`evaluate` is what the loop and the verb call; `open_run` makes a finished
run ready for it, and for the report.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from magvit_jax import registry
from magvit_jax.data import pipeline
from magvit_jax.distributed import processes
from magvit_jax.types import Array, PyTree

QUIET_SECONDS = 3  # a bar for less would only flicker


def evaluate(
  predict: Callable[[PyTree, dict[str, Array]], dict[str, Array]],
  state: PyTree,
  source: Any,
  metrics: Mapping[str, Mapping[str, Any]],
  *,
  batch: int,
  context: Mapping[str, Any],
  put: Callable[[dict[str, np.ndarray]], PyTree] = lambda b: b,
  progress: bool = True,
  rows: slice | None = None,
) -> dict[str, float]:
  """Runs `predict` over every clip of `source` once and averages.

  Args:
    predict: jitted (state, batch) -> dict of arrays [b …], with 'valid'.
    state: what predict reads.
    source: an eval source; its clips are a fixed list.
    metrics: config of each metric by name, such as {'psnr': {}}.
    batch: clips per call; the last call is padded and 'valid' says so.
    context: the stage's static facts (`sizes` of its ids …).
    put: moves a host batch to the devices.
    progress: whether to show a bar when this takes more than a few seconds.
    rows: this process's rows of each batch; None for all.

  Returns:
    The results of all metrics in one dict, such as {'psnr': 24.1}.

  Raises:
    KeyError: a metric that does not exist; the message lists them.
    TypeError: a metric argument that does not exist, or a metric that needs
      an array which predict does not give.
    ValueError: two metrics that give the same result, or an empty source.
  """
  built = build_metrics(metrics, source, context)
  sums = None
  outputs = predictions(
    predict,
    state,
    source,
    batch=batch,
    put=put,
    progress=progress,
    rows=rows,
  )
  for output in outputs:
    new = _sums(_needed(output, built), built)
    # Waiting for the previous batch only keeps the device busy and holds the
    # arrays of at most two batches.
    jax.block_until_ready(sums)
    sums = new if sums is None else _add(sums, new)
  return _results(built, processes.fetch(sums))


def build_metrics(
  metrics: Mapping[str, Mapping[str, Any]],
  source: Any,
  context: Mapping[str, Any],
) -> tuple[Any, ...]:
  """Builds metrics, each with the facts among files and sizes it declares."""
  facts = {"files": len(source.files), "sizes": tuple(context.get("sizes", ()))}
  built = []
  for name, args in metrics.items():
    fields = registry.arguments(registry.load("metrics", name))
    extra = {k: v for k, v in facts.items() if k in fields}
    built.append(registry.build("metrics", {"name": name, **args}, **extra))
  return tuple(built)


def predictions(
  predict: Callable[[PyTree, dict[str, Array]], dict[str, Array]],
  state: PyTree,
  source: Any,
  *,
  batch: int,
  put: Callable[[dict[str, np.ndarray]], PyTree] = lambda b: b,
  progress: bool = True,
  rows: slice | None = None,
  label: str = "evaluating",
) -> Iterator[dict[str, Array]]:
  """Yields what predict gives for each batch of the fixed list.

  Raises:
    ValueError: the source has no clips.
  """
  if not len(source):
    raise ValueError(
      "evaluation: the source has no clips; set data.eval_clips to at least 1"
    )
  bar = tqdm.tqdm(
    total=len(source),
    desc=label,
    unit="clip",
    delay=QUIET_SECONDS,
    leave=False,
    disable=not progress,
  )
  found = pipeline.eval_batches(source, batch=batch, rows=rows)
  with bar, contextlib.closing(found) as batches:
    for host in batches:
      yield predict(state, put(pipeline.arrays(host)))
      bar.update(min(batch, len(source) - bar.n))


def _needed(
  output: dict[str, Array], built: tuple[Any, ...]
) -> dict[str, Array]:
  """The arrays that metrics read, so that the rest is not kept alive."""
  needed = {"valid"}
  for metric in built:
    for name, p in inspect.signature(metric.update).parameters.items():
      if p.kind is p.VAR_KEYWORD or name == "frozen":
        continue
      if name not in output:
        raise TypeError(
          f"{type(metric).__module__} needs {name!r}, but predict gives "
          f"{sorted(output)}; remove the metric from eval.metrics"
        )
      needed.add(name)
  return {name: output[name] for name in sorted(needed)}


@functools.partial(jax.jit, static_argnames="metrics")
def _sums(arrays: dict[str, Array], metrics: tuple[Any, ...]) -> list[PyTree]:
  # Metrics are hashable values, so one program per batch shape serves every
  # evaluation of a run.
  return [metric.update(**arrays) for metric in metrics]


@jax.jit
def _add(a: PyTree, b: PyTree) -> PyTree:
  return jax.tree.map(lambda x, y: x + y, a, b)


def _results(built: tuple[Any, ...], sums: list[PyTree]) -> dict[str, float]:
  results: dict[str, float] = {}
  for metric, total in zip(built, sums, strict=True):
    new = metric.result(total)
    twice = sorted(set(new) & set(results))
    if twice:
      raise ValueError(
        f"{type(metric).__module__} gives {twice}, which another metric gives "
        "too; keep one of them in eval.metrics"
      )
    results.update(new)
  return results


class Picked:
  """Some clips of a source, in a given order, as a source of its own.

  An index may come twice: a training source then draws two windows.
  """

  def __init__(self, source: Any, indices: Sequence[int]):
    self.source, self.indices = source, tuple(indices)
    names = ("files", "labels", "shape", "ids_shape", "conditions")
    for name in (*names, "on_corrupt"):
      if hasattr(source, name):
        setattr(self, name, getattr(source, name))

  def __len__(self) -> int:
    return len(self.indices)

  def clip(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
    """Clip i of the picked ones."""
    return self.source.clip(self.indices[i], rng)
