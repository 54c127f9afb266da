"""Gradient accumulation: a step over a batch in parts, one after the other.

A step of `parts` micro-batches holds the activations of one of them at a time.
Gradients and metrics are averaged over the parts, sums (of quantizers, of
histograms) added. For a loss that is a mean over examples the gradient is that
of the whole batch. What is not such a mean becomes that of a micro-batch:

- The batch entropy of LFQ and its kin is the entropy of the codes of one
  micro-batch. Entropy is concave, so that its mean over the parts is at most
  the entropy of the whole batch: the term asks less for codes in use, the more
  so the smaller a part is beside the vocabulary.
- The loss of a masked generator is the mean over examples with a mask; an
  example without any counts in none of the parts.

Row i of a batch goes to part i % parts. A batch that is split over devices in
blocks of rows then stays where it is: each device has its share of every part.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from magvit_jax.types import Array, Key, PyTree


class StepOutput(NamedTuple):
  """Gradients, metrics and statistics of a forward and backward pass.

  Attributes:
    grads: averaged over the parts.
    metrics: a tree of float32 scalars; averaged.
    stats: added, but for leaves 'pick_…', of which the last is kept.
  """

  grads: PyTree
  metrics: PyTree
  stats: PyTree


def run(
  function: Callable[[dict[str, Array], Key], StepOutput],
  batch: dict[str, Array],
  key: Key,
  parts: int,
) -> StepOutput:
  """`function` over each micro-batch, with a key of its own.

  Args:
    function: (batch, key) -> Pass.
    batch: leaves [b …].
    key: given to `function` as it is if there is one part.
    parts: number of micro-batches.

  Returns:
    The Pass of the whole batch; its gradients are float32.

  Raises:
    ValueError: the parts do not divide the batch.
  """
  if parts == 1:
    return _float32(function(batch, key))
  rows = split(batch, parts), jax.random.split(key, parts)
  first = jax.tree.map(lambda x: x[0], rows)
  shapes = jax.eval_shape(lambda: _float32(function(*first)))
  start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def body(total, part):
    return add(total, _float32(function(*part))), None

  total, _ = jax.lax.scan(body, start, rows)
  grads, metrics = jax.tree.map(lambda x: x / parts, total[:2])
  return StepOutput(grads, metrics, total.stats)


def add(a: PyTree, b: PyTree) -> PyTree:
  """a + b by leaf; of leaves 'pick_…', which may differ in shape, b's."""

  def leaf(path, a, b):
    name = getattr(path[-1], "key", "")
    return b if str(name).startswith("pick_") else a + b

  return jax.tree_util.tree_map_with_path(leaf, a, b)


def merge(a: StepOutput, b: StepOutput) -> StepOutput:
  """Outputs of different weights as one; the stats are a's."""
  return StepOutput(a.grads | b.grads, _union(a.metrics, b.metrics), a.stats)


def add_outputs(a: StepOutput, b: StepOutput) -> StepOutput:
  """Outputs of the same weights, with metrics of different names, as one."""
  grads = jax.tree.map(jnp.add, a.grads, b.grads)
  return StepOutput(grads, _union(a.metrics, b.metrics), add(a.stats, b.stats))


def _union(a: PyTree, b: PyTree) -> PyTree:
  return {kind: a[kind] | b[kind] for kind in a}


def split(batch: dict[str, Array], parts: int) -> dict[str, Array]:
  """[b …] -> [parts, b / parts …]; part p has the rows p, p + parts, …"""

  def leaf(x):
    rows = micro_batch(len(x), parts)
    return x.reshape(rows, parts, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(leaf, batch)


def micro_batch(batch: int, parts: int) -> int:
  """Examples of a part.

  Raises:
    ValueError: there is less than one part, or the parts do not divide it.
  """
  if parts < 1 or batch % parts:
    raise ValueError(
      f"stage.accumulate is {parts} and the batch {batch}; the batch must be a "
      "multiple of stage.accumulate, which is at least 1"
    )
  return batch // parts


def _float32(one: StepOutput) -> StepOutput:
  # Sums of many bfloat16 gradients would lose the small ones.
  grads = jax.tree.map(lambda g: g.astype(jnp.float32), one.grads)
  return one._replace(grads=grads)
