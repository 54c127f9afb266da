"""init_from: weights of another run, as far as names and shapes agree."""

import pathlib

import jax
import jax.numpy as jnp

from magvit_jax import checkpoint as checkpoints
from magvit_jax import tree as trees
from magvit_jax.stages import TrainState
from magvit_jax.types import PyTree

LISTED = 8  # names shown per line of the report


def load(path: str, state: TrainState) -> tuple[TrainState, str]:
  """Takes the average weights of another run into params and EMA.

  The EMA is what evaluation saw, so it is what is taken over. A GAN keeps its
  generator under 'gen'; the prefix is left out on both sides, so that runs
  with and without a discriminator can start from each other. Optimizer, step
  and discriminator start anew.

  Args:
    path: a workdir, or one checkpoint folder workdir/checkpoints/<step>.
    state: freshly initialised.

  Returns:
    The warm state, and a report of what was and was not loaded.

  Raises:
    OSError: no checkpoint there.
    ValueError: nothing in it fits.
  """
  workdir, step = _place(path)
  saved = checkpoints.stored(workdir, step, "ema")
  fresh = trees.named(state.ema)
  fits, missing, shapes = [], [], []
  for name, leaf in fresh.items():
    if name not in saved:
      missing.append(name)
    elif tuple(saved[name].shape) != leaf.shape:
      was, now = tuple(saved[name].shape), leaf.shape
      shapes.append(f"{name} {was} there, {now} here")
    else:
      fits.append(name)
  unused = [name for name in saved if name not in fresh]
  if not fits:
    raise ValueError(
      f"init_from={path}: none of its {len(saved)} arrays fits by name and "
      f"shape (first there: {', '.join(list(saved)[:3])}; first here: "
      f"{', '.join(list(fresh)[:3])}). Give a run of the same kind of net"
    )
  wanted = _nest({name: fresh[name] for name in fits})
  loaded = trees.named(checkpoints.load_params(workdir, wanted, step=step))
  warm = state._replace(
    params=_replace(state.params, loaded), ema=_replace(state.ema, loaded)
  )
  report = [
    f"init_from {workdir} step {step}: loaded {len(fits)} of {len(fresh)}",
    *_line("not there, so initialised", missing),
    *_line("of another shape, so initialised", shapes),
    *_line("there but not used", unused),
  ]
  return warm, "\n".join(report)


def _place(path: str) -> tuple[pathlib.Path, int]:
  folder = pathlib.Path(path)
  if folder.parent.name == "checkpoints" and folder.name.isdigit():
    if not folder.is_dir():
      raise OSError(f"init_from={path} does not exist")
    return folder.parent.parent, int(folder.name)
  found = checkpoints.steps(folder)
  if not found:
    raise OSError(
      f"init_from={path} holds no checkpoints/<step>; give the workdir of a "
      "run, or one of its checkpoints"
    )
  return folder, found[-1]


def _replace(tree: PyTree, loaded: dict[str, jax.Array]) -> PyTree:
  def pick(path, leaf):
    new = loaded.get(trees.path_name(path).removeprefix("gen/"))
    if new is None:
      return leaf
    # A copy: params are donated, and must not share memory with the EMA.
    return jax.device_put(jnp.array(new, leaf.dtype), leaf.sharding)

  return jax.tree_util.tree_map_with_path(pick, tree)


def _nest(flat: dict[str, jax.Array]) -> PyTree:
  tree: dict = {}
  for name, leaf in flat.items():
    *folders, last = name.split("/")
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[last] = leaf
  return tree


def _line(title: str, names: list[str]) -> list[str]:
  if not names:
    return []
  more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
  return [f"  {title}: {', '.join(names[:LISTED])}{more}"]
