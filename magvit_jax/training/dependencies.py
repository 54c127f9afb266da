"""The frozen arrays of a run: found, checked, kept.

A generator's config names the workdir of a tokenizer. `resolve` writes into
the config what that tokenizer is, and `describe` what the clips are, so that
config.json, workdir/frozen and the checkpoints are all that is needed later.

A tokenizer's config may name the weights of a perceptual loss, of which
`resolve` writes the fingerprint. They are read for training alone.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections

from magvit_jax import registry, tokenizers
from magvit_jax.checkpoints import checksum, frozen_params, saved_weights
from magvit_jax.files import paths, weight_file, workdirs
from magvit_jax.losses import perceptual
from magvit_jax.stages import _generator_model
from magvit_jax.types import PyTree


def resolve(
  cfg: Any, folder: paths.Name
) -> tuple[ml_collections.ConfigDict, PyTree]:
  """Fills in `cfg.tokenizer` or `cfg.stage.perceptual`; others stay.

  Args:
    cfg: ConfigDict; its `tokenizer` has 'workdir' and 'fingerprint' ('' takes
      whatever tokenizer is there), `stage.perceptual` 'weights' and
      'fingerprint'.
    folder: workdir of the run, which may exist already.

  Returns:
    The resolved config, and {'tokenizer': weights}, {'perceptual': weights},
    or {}.

  Raises:
    FileNotFoundError: no such workdir or file, or it has no checkpoint.
    ValueError: no tokenizer, other weights than `fingerprint` says or than
      the run in `folder` was trained with, or weights of another network.
  """
  if "tokenizer" in cfg:
    return _resolve_tokenizer(cfg, folder)
  if frozen_params.perceptual_group(cfg):
    return _resolve_perceptual(cfg, folder)
  return cfg, {}


def _resolve_tokenizer(
  cfg: Any, folder: paths.Name
) -> tuple[ml_collections.ConfigDict, PyTree]:
  source, saved = cfg.tokenizer.workdir, _saved(folder)
  saved = saved if saved and "tokenizer" in saved else None
  if saved and not (paths.as_path(source) / "config.json").exists():
    # The tokenizer's run is gone or elsewhere; this run has its weights.
    params = frozen_params.restore(folder, saved)["tokenizer"]
    stage = saved["tokenizer"]
  else:
    stage = _tokenizer_stage(source)
    wanted = tokenizers.abstract(tokenizers.build_tokenizer(stage))
    params = saved_weights.weights(source, wanted, None)
  own = {part: stage[part] for part in frozen_params.PARTS}
  own["fingerprint"] = checksum.fingerprint(params)
  pinned = cfg.tokenizer.fingerprint
  _check_pinned("tokenizer", source, own["fingerprint"], pinned)
  resolved = {**registry.plain(cfg), "tokenizer": {"workdir": source, **own}}
  if saved:
    theirs = {name: saved["tokenizer"][name] for name in own}
    _check_same(folder, "tokenizer", theirs, own)
    resolved["clips"] = saved["clips"]
  return ml_collections.ConfigDict(resolved), {"tokenizer": params}


def _resolve_perceptual(
  cfg: Any, folder: paths.Name
) -> tuple[ml_collections.ConfigDict, PyTree]:
  plain, saved = registry.plain(cfg), _saved(folder)
  own = plain["stage"]["perceptual"]
  trained = frozen_params.perceptual_group(saved) if saved else None
  if saved and not trained:
    raise ValueError(
      f"{folder} was trained without a perceptual loss; set "
      "stage.perceptual.name to 'none' there, or choose another --workdir and "
      f"begin with its weights: --config.init_from={folder}"
    )
  if trained:
    _check_same(folder, "perceptual loss", _net(trained), _net(own))
  source = own["weights"]
  what = f"the weights of stage.perceptual ({own['name']}) in {source!r}"
  loss = perceptual.build(own, jnp.float32)
  if trained and not paths.as_path(source).is_file():
    # The file is gone or elsewhere; this run has its weights.
    params = frozen_params.restore_arrays(folder, frozen_params.shapes(cfg))[
      "perceptual"
    ]
  else:
    params = _read_perceptual(own, loss, what)
  mark = checksum.fingerprint(params)
  _check_pinned("stage.perceptual", source, mark, own["fingerprint"])
  own["fingerprint"] = mark
  if trained:
    mark = {"fingerprint": trained["fingerprint"]}, {"fingerprint": mark}
    _check_same(folder, "perceptual loss", *mark)
  else:
    _check_alive(loss, params, what)
  return ml_collections.ConfigDict(plain), {"perceptual": params}


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


def _tokenizer_stage(source: str) -> dict[str, Any]:
  try:
    document = workdirs.read_config(source)
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


def _read_perceptual(own: Mapping[str, Any], loss: Any, what: str) -> PyTree:
  """The weights that a `perceptual` config names."""
  if not own["weights"]:
    raise ValueError(
      f"stage.perceptual.weights is empty, and {own['name']} needs some: give "
      "a file that `convert` wrote, or train without one, with the name 'none' "
      "and no weight of 'loss_perceptual'"
    )
  arrays, notes = weight_file.read(own["weights"])
  for name, value in notes.items():
    # Weights with another padding have the same shapes.
    if loss.notes.get(name, value) != value:
      raise ValueError(
        f"{what} are of the wrong network: their {name} is {value!r}, and this "
        f"loss has {loss.notes[name]!r}; make them agree"
      )
  return weight_file.fit(arrays, loss.abstract(), what)


def _check_alive(loss: Any, params: PyTree, what: str) -> None:
  try:
    perceptual.check(loss, params)
  except ValueError as error:
    raise ValueError(f"{what}: {error}") from error


def _net(own: Mapping[str, Any]) -> dict[str, Any]:
  """What of a `perceptual` config says which network it is."""
  free = ("weights", "fingerprint", "frames")
  return {k: v for k, v in own.items() if k not in free}


def _check_pinned(group: str, source: str, mark: str, pinned: str) -> None:
  if pinned not in ("", mark):
    raise ValueError(
      f"the {group} in {source} has the fingerprint {mark}, but "
      f"{group}.fingerprint is {pinned!r}; give that one, or '' to take this"
    )


def _saved(folder: paths.Name) -> dict[str, Any] | None:
  """The config of the run in `folder`, if there is one."""
  if not (paths.as_path(folder) / "config.json").exists():
    return None
  return registry.plain(workdirs.read_config(folder)["config"])


def _check_same(
  folder: Any, what: str, trained: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
  """ValueError, also under --resume=force: the run would mix the two."""
  changes = workdirs.diff(trained, found)
  if changes:
    raise ValueError(
      f"{folder} was trained with another {what}:\n  "
      + "\n  ".join(changes)
      + "\nGive the one it was trained with, or choose another --workdir"
    )


def _check_tasks(tasks: Mapping[str, Any], module: Any, source: Any) -> None:
  """Refuses token records without the condition clips that tasks need."""
  needs = _generator_model.needs_of(module, tasks, source.shape)
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
