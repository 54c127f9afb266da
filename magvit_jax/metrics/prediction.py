"""Frame prediction in token space: share of the right ids, per factor.

The sampled future is one of many, so the share is far from 1 even for a good
generator; `token_accuracy_repeat` is that of repeating the last given latent
frame.
"""

import dataclasses

import jax.numpy as jnp

from magvit_jax.metrics import averages
from magvit_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Metric:
  """Share of ids at unknown positions that are the clip's own.

  Attributes:
    files: number of files clips come from; they weigh the same.
  """

  files: int

  def __post_init__(self):
    averages.check_files("prediction", self.files)

  def update(
    self,
    *,
    valid: Array,
    ids: Array,
    ids_predicted: Array,
    ids_repeat: Array,
    unknown: Array,
    file: Array,
    **_,
  ) -> dict[str, Array]:
    """Sums over the valid clips.

    Args:
      valid: bool [b].
      ids, ids_predicted, ids_repeat: int [b T H W f].
      unknown: bool [b T H W], positions that were not given.
      file: int [b], index of each clip's file.
    """

    def share(guess):
      right = jnp.mean(guess == ids, axis=-1, dtype=jnp.float32)
      total = jnp.sum(right * unknown, axis=(1, 2, 3))
      return total / jnp.maximum(jnp.sum(unknown, axis=(1, 2, 3)), 1)

    guesses = dict(
      token_accuracy=ids_predicted, token_accuracy_repeat=ids_repeat
    )
    values = {name: share(guess) for name, guess in guesses.items()}
    return averages.sums_by_file(values, file, valid, self.files)

  def result(self, sums: dict[str, Array]) -> dict[str, float]:
    """{'token_accuracy', 'token_accuracy_repeat'} in [0, 1]."""
    return averages.means_of_files(sums)


TINY = dict(files=2)
