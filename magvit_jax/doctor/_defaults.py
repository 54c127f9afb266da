"""A config with the defaults of the components that it names."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from magvit_jax import optim, registry, run_config
from magvit_jax.stages import _gan

# The families of the components of a stage, by the key of their config.
FAMILIES = {
  "backbone": "tokenizers",
  "quantizer": "quantizers",
  "discriminator": "discriminators",
  "image_discriminator": "discriminators",
  "generator": "generators",
  "transformer": "transformers",
}
# Groups of a stage that are arguments of one function or class.
GROUPS = {
  "optim": optim.make,
  "ema": optim.ema_decay,
  "adversarial": _gan.Adversarial,
}


def filled(config: Any) -> dict[str, Any]:
  """The config of a run with every default written out, as plain values.

  Components that this code does not have keep the arguments that are given.
  """
  cfg = registry.plain(run_config.complete(config))
  cfg["stage"] = _component("stages", cfg["stage"])
  return cfg


def _component(family: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
  try:
    factory = registry.load(family, cfg.get("name", ""))
  except KeyError:
    return dict(cfg)
  return {k: _group(k, v) for k, v in _with_defaults(factory, cfg).items()}


def _group(key: str, value: Any) -> Any:
  if isinstance(value, Mapping) and key in FAMILIES:
    return _component(FAMILIES[key], value)
  if isinstance(value, Mapping) and key in GROUPS:
    return _with_defaults(GROUPS[key], value)
  return value


def _with_defaults(
  factory: Callable[..., Any], cfg: Mapping[str, Any]
) -> dict[str, Any]:
  taken = inspect.signature(factory).parameters.values()
  defaults = {p.name: p.default for p in taken if p.default is not p.empty}
  # Linen adds these to the fields of every module.
  owned = ("parent", "name")
  return {k: v for k, v in defaults.items() if k not in owned} | dict(cfg)
