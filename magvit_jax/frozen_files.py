"""workdir/frozen: arrays that never change, saved once with their hash.

`sha256`, which names the arrays as a whole, is written last: without it the
folder is what a kill left, and is written again.
"""

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from magvit_jax import checkpoint, checksum, manifest, paths
from magvit_jax import tree as trees
from magvit_jax.types import PyTree


def save(workdir: paths.Name, frozen: PyTree) -> None:
  """Writes `frozen` and its hash for a run that begins, unless it is empty.

  With several processes all of them call it.
  """
  folder = paths.absolute(workdir) / "frozen"
  note, text = folder / "sha256", checksum.sha256(trees.named(frozen)) + "\n"
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
  ocp.save(folder / "arrays", frozen)
  if first:
    manifest.write(folder / "arrays")
    paths.write_text(note, text)


def restore(workdir: paths.Name, abstract: PyTree) -> PyTree:
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
  frozen = ocp.load(folder / "arrays", checkpoint.placed(abstract))
  saved = paths.read_text(folder / "sha256").strip()
  if checksum.sha256(trees.named(frozen)) != saved:
    raise manifest.DamagedError(
      f"{folder} does not have the hash it was saved with ({saved[:12]}…); "
      "copy it again from where it came"
    )
  return frozen
