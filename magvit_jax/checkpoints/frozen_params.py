"""workdir/frozen: arrays that never change, saved once with their hash.

`sha256`, which names the arrays as a whole, is written last: without it the
folder is what a kill left, and is written again.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from magvit_jax import registry, tokenizers, tree_utils
from magvit_jax.checkpoints import checkpointer, checksum, manifest
from magvit_jax.files import paths
from magvit_jax.losses import perceptual
from magvit_jax.types import PyTree

PARTS = ("backbone", "quantizer", "dtype")


def save(workdir: paths.Name, frozen: PyTree) -> None:
  """Writes `frozen` and its hash for a run that begins, unless it is empty.

  With several processes all of them call it.
  """
  folder = paths.absolute(workdir) / "frozen"
  note, text = (
    folder / "sha256",
    checksum.sha256(tree_utils.named(frozen)) + "\n",
  )
  # Others may be left from a start that failed.
  there = note.is_file() and paths.read_text(note) == text
  multihost_utils.sync_global_devices("frozen arrays looked for")
  if there or not jax.tree.leaves(frozen):
    return
  first = jax.process_index() == 0
  if first:
    # The note goes first, for it vouches for the rest.
    note.unlink(missing_ok=True)
    paths.remove_tree(folder)
  multihost_utils.sync_global_devices("other frozen arrays removed")
  ocp.save(paths.orbax_path(folder.parent) / "frozen/arrays", frozen)
  if first:
    manifest.write(folder / "arrays")
    paths.write_text(note, text)


def restore_arrays(workdir: paths.Name, abstract: PyTree) -> PyTree:
  """The frozen arrays of a run.

  With several processes all of them call it.

  Args:
    workdir: folder of the run.
    abstract: tree of ShapeDtypeStructs; leaves without a sharding go to the
      first device.

  Raises:
    manifest.DamagedError: they are not the ones whose hash was written.
  """
  if not jax.tree.leaves(abstract):
    return abstract
  folder = paths.absolute(workdir) / "frozen"
  try:
    manifest.check(folder / "arrays")
  except manifest.DamagedError as error:
    raise manifest.DamagedError(
      f"{folder / 'arrays'} is damaged: {error}; copy it again from where it "
      "came"
    ) from error
  frozen = ocp.load(
    paths.orbax_path(folder / "arrays"), checkpointer.placed(abstract)
  )
  saved = paths.read_text(folder / "sha256").strip()
  if checksum.sha256(tree_utils.named(frozen)) != saved:
    raise manifest.DamagedError(
      f"{folder} does not have the hash it was saved with ({saved[:12]}…); "
      "copy it again from where it came"
    )
  return frozen


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


def restore(folder: paths.Name, config: Mapping[str, Any]) -> PyTree:
  """The frozen arrays that running a model needs, from its own workdir.

  Those that only training reads, of a perceptual loss, are left there.

  Raises:
    OSError: they are missing.
    manifest.DamagedError: they are not the ones that were saved.
  """
  config = registry.plain(config)
  if "tokenizer" not in config:
    return {}
  return restore_arrays(folder, shapes(config))


def shapes(config: Mapping[str, Any]) -> PyTree:
  """Shapes of the frozen arrays of a resolved config, read from no file."""
  config = registry.plain(config)
  if "tokenizer" in config:
    module = tokenizers.build_tokenizer(config["tokenizer"])
    return {"tokenizer": tokenizers.abstract(module)}
  own = perceptual_group(config)
  if own:
    return {"perceptual": perceptual.build(own, jnp.float32).abstract()}
  return {}


def perceptual_group(config: Any) -> dict[str, Any] | None:
  """The `perceptual` group of a config that has such a loss."""
  group = config["stage"].get("perceptual") if "stage" in config else None
  return None if not group or group["name"] == "none" else group
