"""Find and build components: the name in a config is the file name.

A family is a folder of the package ('convert.nets' is convert/nets). Each of
its files defines one fixed symbol (`SYMBOLS`). A new component is a new file;
nothing has to be registered. Files of your own may lie elsewhere: see
`add_folder`.
"""

import dataclasses
import functools
import importlib
import inspect
import os
import pathlib
import re
import types
from collections.abc import Mapping
from typing import Any

import ml_collections

from magvit_jax import messages

SYMBOLS = {
  "quantizers": "Quantizer",
  "tokenizers": "Backbone",
  "discriminators": "Discriminator",
  "transformers": "Transformer",
  "nets": "Net",
  "convert.nets": "convert",
  "convert.tokenizers": "convert",
  "tasks": "Task",
  "metrics": "Metric",
  "data": "Source",
  "generators": "make",
  "stages": "make",
  "doctor": "check",
}


def symbol(family: str) -> str:
  """The fixed symbol that every file of `family` defines."""
  if family not in SYMBOLS:
    raise KeyError(
      f"family {family!r} does not exist; the families are {sorted(SYMBOLS)}"
    )
  return SYMBOLS[family]


@functools.cache
def names(family: str) -> tuple[str, ...]:
  """Names of the components of a family, in alphabetical order."""
  pattern = re.compile(
    rf"^(?:class|def) {symbol(family)}\b|^{symbol(family)} =", re.MULTILINE
  )
  files = [p for folder in _folders(family) for p in folder.glob("*.py")]
  found = {p.stem for p in files if pattern.search(p.read_text())}
  return tuple(sorted(found - {"__init__"}))


def add_folder(family: str, folder: str | os.PathLike[str]) -> None:
  """Lets files of a folder outside the package be components of a family.

  It counts for this process only: a program that loads a run made with such a
  component calls it first.

  Raises:
    FileNotFoundError: no such folder.
    ValueError: one of its files has the name of a component that exists.
  """
  folder = pathlib.Path(folder).absolute()
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder} is no folder of {family}")
  if folder in _folders(family):
    return
  known = set(names(family))
  taken = sorted(known & {p.stem for p in folder.glob("*.py")})
  if taken:
    raise ValueError(
      f"{folder / taken[0]}.py has the name of one of the {family} there are; "
      "give it another"
    )
  _package(family).append(str(folder))
  names.cache_clear()
  importlib.invalidate_caches()


def _folders(family: str) -> list[pathlib.Path]:
  """Where the files of a family lie."""
  return [pathlib.Path(folder) for folder in _package(family)]


def _package(family: str) -> list[str]:
  """The search path of the package of a family."""
  return importlib.import_module(f"magvit_jax.{family}").__path__


def load(family: str, name: str) -> Any:
  """The class or the function of a component.

  Raises:
    KeyError: the family has no such component; the message lists them.
  """
  return getattr(load_module(family, name), symbol(family))


def load_module(family: str, name: str) -> types.ModuleType:
  """The module of a component; errors as those of `load`."""
  known = names(family)
  if name not in known:
    raise KeyError(
      f"{family} has no {name!r}{messages.suggest(name, known)}; "
      f"there are {', '.join(known)}"
    )
  return importlib.import_module(f"magvit_jax.{family}.{name}")


def build(family: str, cfg: Mapping[str, Any], **extra: Any) -> Any:
  """Builds the component `cfg['name']` from the other keys of `cfg`.

  Args:
    family: folder of the component.
    cfg: a dict or ConfigDict with a key `name`; lists become tuples.
    **extra: arguments the caller owns, such as `latent_dim`.

  Raises:
    KeyError: no `name`, or no such component.
    TypeError: an argument the component does not take; the message says which
      ones it does and suggests the near one.
  """
  args = plain(cfg)
  if "name" not in args:
    raise KeyError(f"a {family} config needs a key 'name'; it has {list(args)}")
  name = args.pop("name")
  factory = load(family, name)
  allowed = arguments(factory)
  for key in args:
    if key in extra:
      raise TypeError(
        f"{family}/{name}: {key!r} is set by its owner (to {extra[key]!r}); "
        "remove it from the config"
      )
    if key not in allowed:
      raise TypeError(
        f"{family}/{name} takes no argument {key!r}"
        f"{messages.suggest(key, allowed)}; "
        f"it takes {', '.join(allowed)}"
      )
  return factory(**args, **extra)


def arguments(factory: Any) -> tuple[str, ...]:
  """Names of the arguments a component is built with."""
  if dataclasses.is_dataclass(factory):
    fields = [f.name for f in dataclasses.fields(factory) if f.init]
    return tuple(n for n in fields if n not in ("parent", "name"))
  return tuple(inspect.signature(factory).parameters)


def plain(cfg: Any) -> Any:
  """ConfigDicts to dicts and lists to tuples, recursively."""
  if isinstance(cfg, ml_collections.ConfigDict):
    cfg = cfg.to_dict()
  if isinstance(cfg, Mapping):
    return {key: plain(value) for key, value in cfg.items()}
  if isinstance(cfg, (list, tuple)):
    return tuple(plain(value) for value in cfg)
  return cfg
