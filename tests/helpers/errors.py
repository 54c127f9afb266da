"""Checks that a message names what is wrong: keys and values, not its prose."""

import contextlib
import re

import pytest


def names(text: str, value) -> bool:
  """True if `text` holds `value` as a whole word or number.

  A number may be written with commas (2,000). 5 is not found in 15 or 5.5.
  """
  forms = [str(value)]
  if isinstance(value, int):
    forms.append(f"{value:,}")
  return any(_whole(form).search(text) for form in forms)


def _whole(form):
  before = r"(?<!\w)(?<!\d[.,])" if form[:1].isalnum() else ""
  after = r"(?!\w)(?![.,]\d)" if form[-1:].isalnum() else ""
  return re.compile(before + re.escape(form) + after)


def check_names(text: str, *values):
  """Fails with the values that `text` does not name."""
  missing = [value for value in values if not names(text, value)]
  assert not missing, f"{missing} not in: {text[:1000]}"


@contextlib.contextmanager
def error_names(kind, *values):
  """The body must raise `kind`, and its message must name all `values`."""
  with pytest.raises(kind) as caught:
    yield caught
  check_names(str(caught.value), *values)
