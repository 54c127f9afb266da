"""Masked-token cross-entropy in nats per position, beside the unigram's.

Ratios of masked positions are drawn by the generator's schedule; the unigram
of the training ids, with add-one smoothing, is asked at the same positions.
Both are summed over the factors of an id. Positions of a file are pooled, and
files weigh the same.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.metrics import averages
from magvit_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Metric:
  """Mean cross-entropy of a generator and of the unigram.

  Attributes:
    files: number of files clips come from.
  """

  files: int

  def __post_init__(self):
    averages.check_files("cross_entropy", self.files)

  def update(
    self,
    *,
    valid: Array,
    nats: Array,
    nats_unigram: Array,
    positions: Array,
    file: Array,
    **_,
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      nats, nats_unigram: float [b], summed over a clip's scored positions.
      positions: int or float [b], how many there are.
      file: int [b], index of each clip's file.
    """
    rows = dict(nats=nats, nats_unigram=nats_unigram, positions=positions)
    return {
      name: jax.ops.segment_sum(
        jnp.where(valid, values.astype(jnp.float32), 0.0), file, self.files
      )
      for name, values in rows.items()
    }

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'cross_entropy', 'cross_entropy_unigram'} in nats per position."""
    named = {
      "cross_entropy": "nats",
      "cross_entropy_unigram": "nats_unigram",
    }
    count = np.asarray(sums["positions"], np.float64)
    seen = count > 0
    return {
      name: float(
        np.mean(np.asarray(sums[key], np.float64)[seen] / count[seen])
      )
      if seen.any()
      else float("nan")
      for name, key in named.items()
    }


TINY = dict(files=2)
