"""Words of errors: the text of one, suggestions, lists cut short."""

import difflib
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

# What a wrong flag, config, file or disk raises: one line, not a traceback.
USER_ERRORS = (
  ValueError,
  OSError,
  TypeError,
  KeyError,
  AttributeError,
  ArithmeticError,
  EOFError,
  zipfile.BadZipFile,
  zlib.error,
)


def text(error: Exception) -> str:
  """Text of an error as the command line shows it."""
  # str of a KeyError is the repr of its message, with quotes around it.
  if isinstance(error, KeyError) and len(error.args) == 1:
    return str(error.args[0])
  return str(error) or type(error).__name__


def some(items: Iterable[str], limit: int = 5) -> str:
  """The first `limit` items, and the number of the others."""
  items = list(items)
  more = f" and {len(items) - limit} more" if len(items) > limit else ""
  return ", ".join(items[:limit]) + more


def suggest(word: str, known: Any) -> str:
  """' (did you mean X?)' for the nearest known word, or nothing."""
  near = difflib.get_close_matches(word, list(known), n=1)
  return f" (did you mean {near[0]!r}?)" if near else ""


def install_extra(extra: str) -> str:
  """How to install an extra; the package is on no index of packages."""
  return (
    f"run `pip install '.[{extra}]' -c launch/constraints.txt` in the folder "
    "of the magvit_jax checkout"
  )


def check_choice(name: str, value: str, known: Any) -> None:
  """ValueError unless `value`, of the argument `name`, is one of `known`."""
  if value not in known:
    raise ValueError(
      f"{name} is {value!r}{suggest(value, known)}; it is one of "
      f"{', '.join(known)}"
    )
