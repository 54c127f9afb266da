"""What goes wrong during a run and is told: clips and steps left out."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from magvit_jax.data import listing

MAX_BAD = 3  # non-finite steps in a row that stop a run


class NonFiniteError(FloatingPointError):
  """Too many steps in a row had a term or gradient that is not finite."""


class Incidents:
  """Counts them, and tells each once.

  Attributes:
    skipped: unreadable clips so far.
  """

  def __init__(self, say: Callable[[str], None], files: tuple[str, ...]):
    """`files` are those that the numbers 'file' of a batch stand for."""
    self.say, self.files = say, files
    self.skipped = 0
    self._told: set[str] = set()
    self._names: dict[str, None] = {}

  def unreadable(self, step: int, batch: Mapping[str, Any]) -> None:
    """Notes the clips that were replaced in the batch of a step."""
    count = int(np.sum(batch.get("skipped", 0)))
    if not count:
      return
    self.skipped += count
    names = sorted(set(batch.get("bad", ())) - self._told)
    self._told |= set(names)
    if names:
      self.say(
        f"step {step}: unreadable, replaced by the next clip: "
        f"{', '.join(names)} ({self.skipped} so far)"
      )

  def finite(self) -> None:
    """Notes a step that was applied."""
    self._names.clear()

  def non_finite(
    self,
    step: int,
    row: int,
    values: Mapping[str, float],
    clips: np.ndarray,
    saved: int | None,
  ) -> None:
    """Notes a step that was not applied.

    Args:
      step: which.
      row: such steps in a row, this one included.
      values: its metrics.
      clips: 'file' of this process's rows of its batch.
      saved: step of the last checkpoint, if there is one.

    Raises:
      NonFiniteError: that was one too many.
    """
    names = [k for k, v in values.items() if not np.isfinite(v)]
    self._names |= dict.fromkeys(names)
    named = ", ".join(self._names) or "a gradient"
    files = listing.some(self.files[i] for i in np.unique(clips))
    self.say(
      f"step {step} was not applied: not finite: {named}; its clips are of "
      f"{files}"
    )
    if row >= MAX_BAD:
      raise NonFiniteError(
        f"step {step}: {row} steps in a row were not finite ({named}); none "
        f"of them was applied. The last checkpoint is "
        f"{'none' if saved is None else f'step {saved}'}. Lower "
        "stage.optim.lr, set stage.optim.clip, or look at the data of these "
        f"steps (the last was of {files})"
      )
