"""How much of the vocabulary a tokenizer uses: share of ids, perplexity.

Both are bounded by the number of tokens looked at: n tokens of a vocabulary
of 2^18 use at most n ids.
"""

import dataclasses

import numpy as np

from magvit_jax.metrics import histograms
from magvit_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Metric:
  """Usage and perplexity of `ids`, per factor, averaged over the factors.

  Attributes:
    sizes: number of ids per factor.
  """

  sizes: tuple[int, ...]

  def __post_init__(self):
    histograms.check_sizes("codebook_usage", self.sizes)

  def update(self, *, valid: Array, ids: Array, **_) -> dict[str, Array]:
    """Histograms over the valid clips.

    Args:
      valid: bool [b].
      ids: int [b … f].
    """
    return histograms.count_ids("codebook_usage", ids, valid, self.sizes)

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'usage': share in [0,1], 'perplexity': exp of the entropy in nats}."""
    counts = [np.asarray(sums[f"ids_{k}"]) for k in range(len(self.sizes))]
    return {
      "usage": float(np.mean([np.mean(c > 0) for c in counts])),
      "perplexity": float(
        np.mean([np.exp(histograms.entropy(c)) for c in counts])
      ),
    }


TINY = dict(sizes=(8, 5))
