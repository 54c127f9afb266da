"""init_from: weights of another run, as far as names and shapes agree.

With `inflate` a video tokenizer takes those of an image tokenizer; see
magvit_jax/checkpoints/inflation.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from magvit_jax import messages, registry, sharding, tree_utils
from magvit_jax.checkpoints import checkpointer, inflation
from magvit_jax.files import paths
from magvit_jax.stages import TrainState
from magvit_jax.types import PyTree

LISTED = 8  # names shown per line of the report
CHOICES = ("none", *sum(inflation.CHOICES.values(), ()))
DISCRIMINATOR = "disc/"  # what its names begin with among the params


class Match(NamedTuple):
  """What a run holds for a state.

  Attributes:
    workdir: the run.
    step: its checkpoint.
    ema: shapes and dtypes of the leaves to load, by name.
    params: likewise of the discriminator.
    how: how kernels of one frame are inflated, or 'none'.
    report: what is and is not loaded.
  """

  workdir: paths.Path
  step: int
  ema: dict[str, Any]
  params: dict[str, Any]
  how: str
  report: str


def check(cfg: Any) -> None:
  """Refuses an `inflate` that does not suit the rest of a config.

  Raises:
    ValueError: there is no such choice, nothing to inflate, or a backbone for
      which another is meant.
  """
  how = cfg.inflate
  messages.check_choice("inflate", how, CHOICES)
  if how == "none":
    return
  if not cfg.init_from or "backbone" not in cfg.stage:
    raise ValueError(
      f"inflate is {how!r}, which takes the weights of an image tokenizer into "
      f"one of videos, but init_from is {cfg.init_from!r} and the stage "
      f"{cfg.stage.name!r}; name the image run with --config.init_from=DIR, or "
      "set --config.inflate=none"
    )
  name = cfg.stage.backbone.name
  causal = registry.load("tokenizers", name).causal
  suited = inflation.CHOICES[causal]
  if how not in suited:
    raise ValueError(
      f"inflate is {how!r}, and the backbone {name} is "
      f"{'' if causal else 'not '}causal: {inflation.REASONS[causal]}; use "
      f"{' or '.join(suited)}"
    )


def match(path: str, state: TrainState, how: str = "none") -> Match:
  """Finds out what of another run fits, without reading an array.

  Args:
    path: a workdir, or one checkpoint folder workdir/checkpoints/<step>.
    state: freshly initialised, or its shapes.
    how: 'none', or how kernels of one frame are inflated.

  Raises:
    OSError: no checkpoint there.
    ValueError: nothing in it fits, or a leaf of another shape while inflating.
  """
  workdir, step = _place(path)
  saved = checkpointer.stored(workdir, step, "ema")
  fresh = tree_utils.named(state.ema)
  both, shapes = _compare(saved, fresh, how)
  if shapes and how != "none":
    wrong = messages.some(shapes, LISTED)
    raise ValueError(
      f"init_from={path}: inflate={how} cannot take {wrong}. "
      "Only the time of a kernel may grow, from 1, and under 'last' the "
      "channels before depth to space; train the image net with the width, "
      "multipliers, blocks and quantizer of the video net"
    )
  if not both:
    raise ValueError(
      f"init_from={path}: none of its {len(saved)} arrays fits by name and "
      f"shape (first there: {', '.join(list(saved)[:3])}; first here: "
      f"{', '.join(list(fresh)[:3])}). Give a run of the same kind of net"
    )
  disc, line = {}, []
  if how in inflation.CHOICES[False]:
    disc, line = _discriminator(workdir, step, state.params, how)
  report = [
    f"init_from {workdir} step {step}: loaded {len(both)} of {len(fresh)}",
    *line,
    *_line("not there, so initialised", [n for n in fresh if n not in saved]),
    *_line("of another shape, so initialised", shapes),
    *_line("there but not used", [n for n in saved if n not in fresh]),
  ]
  return Match(workdir, step, both, disc, how, "\n".join(report))


def load(found: Match, state: TrainState) -> TrainState:
  """Takes the average weights of another run into params and EMA.

  The EMA is what evaluation saw, so it is what is taken over. A GAN keeps its
  generator under 'gen'; the prefix is left out on both sides, so that runs
  with and without a discriminator can start from each other. Optimizer, step
  and discriminator start anew; but MAGVIT inflates the discriminator too, so
  'central' and 'average' take it over where all of it fits.

  Args:
    found: what to load, of a state with these shapes.
    state: freshly initialised.
  """
  loaded = {}
  for item in ("ema", "params"):
    wanted = getattr(found, item)
    if wanted:
      tree = checkpointer.load_params(
        found.workdir, _nest(wanted), item, found.step
      )
      loaded |= tree_utils.named(tree)
  return state._replace(
    params=_replace(state.params, loaded, found.how),
    ema=_replace(state.ema, loaded, found.how),
  )


def _compare(
  saved: Mapping[str, Any], fresh: Mapping[str, Any], how: str
) -> tuple[dict[str, Any], list[str]]:
  """Leaves to load, as they are saved, and a line for each that cannot be."""
  both, shapes = {}, []
  for name, leaf in fresh.items():
    if name not in saved:
      continue
    was, now = tuple(saved[name].shape), leaf.shape
    if was == now or (how != "none" and inflation.fits(was, now, how)):
      both[name] = jax.ShapeDtypeStruct(
        was, saved[name].dtype, sharding=_where(leaf, was)
      )
    else:
      shapes.append(f"{name} {was} there, {now} here")
  return both, shapes


def _discriminator(
  workdir: paths.Path, step: int, params: PyTree, how: str
) -> tuple[dict[str, Any], list[str]]:
  """Its leaves, if each of them is there and fits, and a line that tells."""
  saved, fresh = (
    {k: v for k, v in leaves.items() if k.startswith(DISCRIMINATOR)}
    for leaves in (
      checkpointer.stored(workdir, step, "params"),
      tree_utils.named(params),
    )
  )
  if not fresh:
    return {}, []
  both, shapes = _compare(saved, fresh, how)
  if len(both) == len(fresh):
    return both, [f"  and its discriminator: {len(both)} of {len(fresh)}"]
  missing = [f"{name} is not there" for name in fresh if name not in saved]
  reason = messages.some([*shapes, *missing], 1)
  return {}, [f"  its discriminator starts anew: {reason}"]


def _where(leaf: Any, saved: tuple[int, ...]) -> Any:
  """The sharding to load with: the leaf's own cannot split other shapes."""
  own = leaf.sharding
  if saved == leaf.shape or not isinstance(own, jax.sharding.NamedSharding):
    return own
  return sharding.replicated(own.mesh)


def _place(path: str) -> tuple[paths.Path, int]:
  folder = paths.as_path(path)
  if folder.parent.name == "checkpoints" and folder.name.isdigit():
    if not folder.is_dir():
      raise OSError(f"init_from={path} does not exist")
    return folder.parent.parent, int(folder.name)
  found = checkpointer.steps(folder)
  if not found:
    raise OSError(
      f"init_from={path} holds no checkpoints/<step>; give the workdir of a "
      "run, or one of its checkpoints"
    )
  return folder, found[-1]


def _replace(tree: PyTree, loaded: dict[str, jax.Array], how: str) -> PyTree:
  def pick(path, leaf):
    new = loaded.get(tree_utils.path_name(path).removeprefix("gen/"))
    if new is None:
      return leaf
    if new.shape != leaf.shape:
      new = inflation.inflate(np.asarray(new), leaf.shape, how)
    # A copy: params are donated, and must not share memory with the EMA.
    new = new.astype(leaf.dtype)
    return jax.device_put(new, leaf.sharding, may_alias=False)

  return jax.tree_util.tree_map_with_path(pick, tree)


def _nest(flat: dict[str, Any]) -> PyTree:
  tree: dict = {}
  for name, leaf in flat.items():
    *folders, last = name.split("/")
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[last] = leaf
  return tree


def _line(title: str, names: list[str]) -> list[str]:
  return [f"  {title}: {messages.some(names, LISTED)}"] if names else []
