"""The frozen tokenizer of a generator's run: found, checked, kept.

A generator's config names the workdir of a tokenizer. `resolve` writes into
the config what that tokenizer is, and `describe` what the clips are, so that
config.json, workdir/frozen and the checkpoints are all that is needed later.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from magvit_jax import api, checkpoint, registry, tokenizers, workdir
from magvit_jax.stages import token_net
from magvit_jax.types import PyTree

PARTS = ("backbone", "quantizer", "dtype")


def resolve(
  cfg: Any, folder: str | os.PathLike[str]
) -> tuple[ml_collections.ConfigDict, PyTree]:
  """Fills in `cfg.tokenizer`; a config without one stays as it is.

  Args:
    cfg: ConfigDict; its `tokenizer` has 'workdir' and 'fingerprint' ('' takes
      whatever tokenizer is there).
    folder: workdir of the generator's run, which may exist already.

  Returns:
    The resolved config, and {'tokenizer': weights}, or {}.

  Raises:
    FileNotFoundError: no such workdir, or it has no checkpoint.
    ValueError: no tokenizer, or another one than `fingerprint` says or than
      the run in `folder` was trained with.
  """
  if "tokenizer" not in cfg:
    return cfg, {}
  source, saved = cfg.tokenizer.workdir, _saved(folder)
  if saved and not pathlib.Path(source, "config.json").exists():
    # The tokenizer's run is gone or elsewhere; this run has its weights.
    params = restore(folder, saved)["tokenizer"]
    stage = saved["tokenizer"]
  else:
    stage = _tokenizer_stage(source)
    params = checkpoint.load_params(
      source, abstract(tokenizers.build_tokenizer(stage)), item="ema"
    )
  own = {part: stage[part] for part in PARTS}
  own["fingerprint"] = api.fingerprint(params)
  pinned = cfg.tokenizer.fingerprint
  if pinned not in ("", own["fingerprint"]):
    raise ValueError(
      f"the tokenizer in {source} has the fingerprint {own['fingerprint']}, "
      f"but tokenizer.fingerprint is {pinned!r}; give the workdir of that "
      "tokenizer, or '' to take this one"
    )
  resolved = {**registry.plain(cfg), "tokenizer": {"workdir": source, **own}}
  if saved:
    _check_same(folder, saved["tokenizer"], own)
    resolved["clips"] = saved["clips"]
  return ml_collections.ConfigDict(resolved), {"tokenizer": params}


def describe(cfg: Any, source: Any) -> ml_collections.ConfigDict:
  """Fills in `cfg.clips`: shape and labels of what a generator is trained on.

  Raises:
    ValueError: they are not those that the run began with, or records of
      another tokenizer.
  """
  if "tokenizer" not in cfg:
    return cfg
  facts = {"shape": tuple(source.shape), "labels": tuple(source.labels)}
  plain = registry.plain(cfg)
  for name, value in plain.get("clips", {}).items():
    if facts[name] != value:
      raise ValueError(
        f"the {name} of the clips are {facts[name]}, but this run was trained "
        f"with {value}; give it the same data, or choose another --workdir"
      )
  if hasattr(source, "ids_shape"):
    module = tokenizers.build_tokenizer(plain["tokenizer"])
    _check_records(plain["tokenizer"], module, source)
    _check_tasks(plain["stage"]["tasks"], module, source)
  return ml_collections.ConfigDict({**plain, "clips": facts})


def stage_args(config: Mapping[str, Any]) -> dict[str, Any]:
  """What a resolved config adds to the arguments of its stage.

  Args:
    config: `config` of a config.json, or a resolved ConfigDict.

  Returns:
    {} for stages without a frozen tokenizer; else 'tokenizer', 'shape' and
    'classes'.
  """
  config = registry.plain(config)
  if "tokenizer" not in config:
    return {}
  clips = config["clips"]
  return {
    "tokenizer": {part: config["tokenizer"][part] for part in PARTS},
    "shape": clips["shape"],
    "classes": len(clips["labels"]),
  }


def restore(
  folder: str | os.PathLike[str], config: Mapping[str, Any]
) -> PyTree:
  """The frozen arrays of a run, from its own workdir.

  Raises:
    OSError: they are missing.
    checkpoint.DamagedError: they are not the ones that were saved.
  """
  config = registry.plain(config)
  if "tokenizer" not in config:
    return {}
  module = tokenizers.build_tokenizer(config["tokenizer"])
  return checkpoint.restore_frozen(folder, {"tokenizer": abstract(module)})


def abstract(module: Any) -> PyTree:
  """Shapes of the weights of a `Tokenizer`."""
  st, sh, sw = module.strides
  frames = st + module.backbone.causal
  video = jax.ShapeDtypeStruct((1, frames, sh, sw, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), video)
  return variables.get("params", {})


def _tokenizer_stage(source: str) -> dict[str, Any]:
  try:
    document = workdir.read_config(source)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"tokenizer.workdir: {error}. Train a tokenizer first, or name another "
      "with --config.tokenizer.workdir=DIR"
    ) from error
  stage = registry.plain(document["config"]["stage"])
  if stage["name"] != "tokenizer":
    raise ValueError(
      f"tokenizer.workdir: {source} holds a run of the stage "
      f"{stage['name']!r}; a generator needs one of the stage 'tokenizer'"
    )
  return stage


def _saved(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
  """The config of the run in `folder`, if there is one with a tokenizer."""
  if not (pathlib.Path(folder) / "config.json").exists():
    return None
  config = registry.plain(workdir.read_config(folder)["config"])
  return config if "tokenizer" in config else None


def _check_same(folder: Any, trained: Mapping, found: Mapping) -> None:
  """ValueError, also under --resume=force: ids would change their meaning."""
  names = (*PARTS, "fingerprint")
  changes = workdir.diff(
    {name: trained[name] for name in names},
    {name: found[name] for name in names},
  )
  if changes:
    raise ValueError(
      f"{folder} was trained with another tokenizer:\n  "
      + "\n  ".join(changes)
      + "\nGive the one it was trained with, or choose another --workdir"
    )


def _check_tasks(tasks: Mapping[str, Any], module: Any, source: Any) -> None:
  """Refuses token records without the condition clips that tasks need."""
  needs = token_net.needs_of(module, tasks, source.shape)
  source.check_tasks(tuple(needs), tasks)


def _check_records(
  tokenizer: Mapping[str, Any], module: Any, source: Any
) -> None:
  """Refuses token records that another tokenizer made."""
  grid = module.latent_shape(*source.shape[:3])
  facts = {
    "fingerprint": (source.fingerprint, tokenizer["fingerprint"]),
    "sizes": (tuple(source.sizes), tuple(module.quantizer.sizes)),
    "grid": (tuple(source.ids_shape), module.quantizer.ids_shape(grid)),
  }
  wrong = [
    f"{name}: {theirs} in the records, {ours} here"
    for name, (theirs, ours) in facts.items()
    if theirs != tuple(ours) and theirs != ours
  ]
  if wrong:
    raise ValueError(
      "the token records were made by another tokenizer than "
      f"tokenizer.workdir={tokenizer['workdir']}:\n  "
      + "\n  ".join(wrong)
      + "\nWrite them again with `encode --split=…` of that workdir"
    )
