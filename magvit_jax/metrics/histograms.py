"""Histograms of ids, one per factor, as sums that add over batches."""

import jax.numpy as jnp
import numpy as np

from magvit_jax.types import Array


def check_sizes(metric: str, sizes: tuple[int, ...]) -> None:
  """Raises ValueError unless there are ids to count."""
  if not sizes or min(sizes) < 1:
    raise ValueError(
      f"metrics/{metric}: sizes is {sizes}, but it counts ids, at least one "
      "per factor; leave it out of eval.metrics for a continuous quantizer"
    )


def count_ids(
  metric: str, ids: Array, valid: Array, sizes: tuple[int, ...]
) -> dict[str, Array]:
  """Counts every id of the valid clips.

  Args:
    metric: name of the metric, for the error.
    ids: int [b … f], f = len(sizes), factor k below sizes[k].
    valid: bool [b].
    sizes: ids per factor.

  Returns:
    {'ids_0': int32 [sizes[0]], 'ids_1': …}.

  Raises:
    ValueError: ids have another number of factors than sizes.
  """
  if ids.shape[-1] != len(sizes):
    raise ValueError(
      f"metrics/{metric}: ids {ids.shape} have {ids.shape[-1]} factors, but "
      f"sizes {sizes} has {len(sizes)}; both must come from one quantizer"
    )
  rows = jnp.reshape(ids, (ids.shape[0], -1, len(sizes)))
  ones = jnp.broadcast_to(valid[:, None], rows.shape[:2]).astype(jnp.int32)
  return {
    f"ids_{k}": jnp.zeros(size, jnp.int32).at[rows[..., k]].add(ones)
    for k, size in enumerate(sizes)
  }


def entropy(counts: Array) -> float:
  """Entropy in nats of the distribution that counts [size] describe."""
  counts = np.asarray(counts, np.float64)
  p = counts[counts > 0] / max(counts.sum(), 1.0)
  return float(-np.sum(p * np.log(p)))
