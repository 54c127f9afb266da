"""Class labels as a user writes them, by name or number, to numbers."""

from collections.abc import Sequence

import numpy as np

from magvit_jax import messages

Label = int | str


def numbers(
  label: Label | Sequence[Label] | None, num: int, names: Sequence[str]
) -> np.ndarray:
  """int32 [num], the number of each sample's class; `len(names)` is none.

  Args:
    label: one for all samples, or one for each; None is none.
    num: how many samples.
    names: of the classes, in the order of their numbers.

  Raises:
    ValueError: an unknown label, or not one for each sample.
  """
  if num < 1:
    raise ValueError(f"num is {num}; it must be at least 1")
  if label is None:
    return np.full(num, len(names), np.int32)
  single = isinstance(label, (int, str, np.integer))
  many = [label] * num if single else list(label)
  if len(many) != num:
    raise ValueError(
      f"there are {len(many)} labels for num={num} samples; give one label, "
      "or one for each sample"
    )
  return np.array([number(one, names) for one in many], np.int32)


def number(label: Label, names: Sequence[str]) -> int:
  """The number of one class; a name that is a number goes before the number."""
  text = str(label)
  if text in names and not isinstance(label, (int, np.integer)):
    return list(names).index(text)
  if text.isdecimal() and int(text) < len(names):
    return int(text)
  known = ", ".join(
    f"{k} ({name})" if name != str(k) else name for k, name in enumerate(names)
  )
  raise ValueError(
    f"the checkpoint knows no label {label!r}"
    f"{messages.suggest(text, names)}; it was trained with {known}"
  )
