"""Configs: found by name, changed by flags, completed with defaults."""

import ast
import importlib.util
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from magvit_jax import messages, registry


def load_config(spec: str) -> ml_collections.ConfigDict:
  """The config of 'path/or/name[:argument]'.

  Raises:
    FileNotFoundError: no such file and no such name; the message lists names.
  """
  name, _, argument = spec.partition(":")
  path = _config_path(name)
  module_spec = importlib.util.spec_from_file_location("config", path)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ValueError(f"{path} defines no get_config(arg), as a config must")
  return module.get_config(argument) if argument else module.get_config()


def override(cfg: ml_collections.ConfigDict, flags: list[str]) -> None:
  """Sets values from '--config.a.b=value' (or '--config.a.b value') flags.

  A value takes the type that its key has: whole numbers may stand for floats,
  lists and tuples are written (64, 64), booleans true or false.

  Raises:
    KeyError: no such key; the message suggests the near one.
    ValueError: another flag, or a value of another type.
  """
  flags = list(flags)
  while flags:
    flag, equals, text = flags.pop(0).partition("=")
    if not flag.startswith("--config."):
      raise ValueError(
        f"unknown flag {flag!r}; flags of train are --config, --workdir, "
        "--resume, --profile_steps, --coordinator, --processes, --process and "
        "--config.KEY=VALUE (see --help)"
      )
    if not equals:
      if not flags or flags[0].startswith("--"):
        raise ValueError(f"{flag} needs a value: {flag}=VALUE")
      text = flags.pop(0)
    _set(cfg, flag.removeprefix("--config."), text)


def _set(cfg: ml_collections.ConfigDict, key: str, text: str) -> None:
  *folders, last = key.split(".")
  node: Any = cfg
  for depth, part in enumerate([*folders, last]):
    inside = isinstance(node, ml_collections.ConfigDict)
    if not inside or part not in node:
      where = ".".join(["config", *folders[:depth]])
      known = list(node.keys()) if inside else []
      holds = f"it has {', '.join(sorted(known))}" if known else "it is a value"
      raise KeyError(
        f"{where} has no key {part!r}{messages.suggest(part, known)}; {holds}"
      )
    if depth < len(folders):
      node = node[part]
  node[last] = _parse(key, text, node[last])


def _parse(key: str, text: str, old: Any) -> Any:
  """`text` as a value of the type of `old`."""
  kind = type(old)
  if kind is str:
    return text
  if isinstance(old, ml_collections.ConfigDict):
    raise ValueError(
      f"--config.{key} is a group of keys ({', '.join(old.keys())}); set "
      "those one by one"
    )
  words = {"true": True, "false": False, "none": None}
  try:
    value = words[text.lower()] if text.lower() in words else _literal(text)
  except (ValueError, SyntaxError):
    value = text
  if kind is float and type(value) is int:
    value = float(value)
  if kind in (tuple, list) and isinstance(value, (tuple, list)):
    value = kind(value)
  if old is not None and type(value) is not kind:
    raise ValueError(
      f"--config.{key}={text} is of type {type(value).__name__}; it must be "
      f"{kind.__name__}, as the config's own {old!r} is"
    )
  return value


def _literal(text: str) -> Any:
  # Whole numbers in the form 1e5 stand for what they say.
  if re.fullmatch(r"\d+e\d+", text):
    return int(float(text))
  return ast.literal_eval(text)


def _config_path(name: str) -> pathlib.Path:
  path = pathlib.Path(name)
  if path.is_file():
    return path
  folders = _config_folders()
  for folder in folders:
    candidate = folder / f"{name.removesuffix('.py')}.py"
    if candidate.is_file():
      return candidate
  known = sorted(
    {
      str(p.relative_to(folder).with_suffix(""))
      for folder in folders
      for p in folder.rglob("*.py")
      if not p.stem.startswith("_")
    }
  )
  raise FileNotFoundError(
    f"config {name!r} is neither a file nor a name"
    f"{messages.suggest(name, known)}; the names are {', '.join(known)}"
  )


def _config_folders() -> list[pathlib.Path]:
  """Installed as magvit_jax/configs; configs/ beside it in a checkout."""
  package = pathlib.Path(registry.__file__).parent
  folders = [package / "configs", package.parent / "configs"]
  return [folder for folder in folders if folder.is_dir()]


def base() -> ml_collections.ConfigDict:
  """The keys that every config has, without stage and data."""
  cfg = ml_collections.ConfigDict()
  cfg.seed = 0
  cfg.loader = dict(threads=2, prefetch=4)
  cfg.mesh = dict(data=-1, fsdp=1, context=1, tensor=1)
  cfg.init_from = ""
  cfg.inflate = "none"
  cfg.log = dict(every=20)
  cfg.watch = dict(
    stall_seconds=300.0,  # without progress, before it is told; 0 for never
    compile_seconds=1800.0,  # in place of that, while programs are compiled
    spike=6.0,  # robust deviations that make a loss a spike; 0 for never
  )
  return cfg


def complete(cfg: Any) -> ml_collections.ConfigDict:
  """A config with the keys of `base` that it lacks, at their defaults.

  Configs from before a key was added mean the same as with its default.
  """
  given = ml_collections.ConfigDict(cfg).to_dict()
  return ml_collections.ConfigDict(_filled(given, base().to_dict()))


def _filled(cfg: Any, defaults: Any) -> Any:
  """`cfg` over `defaults`, in the order of `cfg`."""
  if not (isinstance(cfg, Mapping) and isinstance(defaults, Mapping)):
    return cfg
  own = {k: _filled(v, defaults.get(k)) for k, v in cfg.items()}
  return own | {k: v for k, v in defaults.items() if k not in cfg}
