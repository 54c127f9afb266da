"""Conversion of public weights: the name in --from is a file of this folder.

Every file defines

  FILES           the public files by name, as `PublicFile`s

and is one of two kinds. The weights of a net that a loss reads:

  NOTES           what the written file says of itself, such as its net
  USE             how the written file is used, with {out} for its name
  convert(state)  arrays by their public names -> arrays by ours
  shapes()        tree of the shapes that `convert` must give

A whole tokenizer, which goes both ways (folder.py); `stage` is the `stage`
group of a config, of any width and depth that the layout can hold:

  MODELS                  the published nets by name, as `Model`s
  select(state)           arrays of a public file -> those of the tokenizer, by
                          the names that its module gives them: drops what only
                          training needs, and takes averages over raw weights
  convert(state, stage)   what `select` gave -> arrays by our names, flat:
                          'backbone/encoder/stem/kernel'
  public(arrays, stage)   the inverse of `convert`

so that a source is one table of names and what happens to the axes, which
`rename` reads forwards and `rename_back` backwards. Nothing is ever downloaded
here.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from magvit_jax import registry
from magvit_jax.checkpoints import checksum

SHOWN = 3  # names that an error lists
UNKNOWN = "not known"  # the sha256 of a file of which none was seen


@dataclasses.dataclass(frozen=True)
class Change:
  """What happens to an array, and how it is undone.

  Attributes:
    there: public -> ours.
    back: ours -> public.
  """

  there: Callable[[np.ndarray], np.ndarray]
  back: Callable[[np.ndarray], np.ndarray]

  def __call__(self, array: np.ndarray) -> np.ndarray:
    return self.there(array)


def axes(*order: int) -> Change:
  """The axes in another order, as `np.transpose` takes it."""
  undone = tuple(int(i) for i in np.argsort(order))
  return Change(lambda x: x.transpose(order), lambda x: x.transpose(undone))


same = Change(lambda x: x, lambda x: x)
dense = axes(1, 0)  # torch's [o c] -> [c o]
conv2d = axes(2, 3, 1, 0)  # torch's [o c h w] -> [h w c o]
conv3d = axes(2, 3, 4, 1, 0)  # torch's [o c t h w] -> [t h w c o]
# A convolution of 1x1x1, torch's [o c 1 1 1], -> a matrix [c o].
point3d = Change(
  lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T[:, :, None, None, None]
)

Rule = tuple[str, Callable[[np.ndarray], np.ndarray]]
TwoWays = tuple[str, Change]


class Model(NamedTuple):
  """A published tokenizer.

  Attributes:
    backbone: the `backbone` group of a stage.
    quantizer: the `quantizer` group.
    frames: of the clips it was trained on.
    size: (height, width) of those.
  """

  backbone: Mapping[str, Any]
  quantizer: Mapping[str, Any]
  frames: int
  size: tuple[int, int]

  @property
  def config(self) -> dict[str, Any]:
    """What of a run's config says which tokenizer it is."""
    stage = dict(name="tokenizer", dtype="float32")
    stage |= {"backbone": self.backbone, "quantizer": self.quantizer}
    return dict(stage=stage, data=dict(frames=self.frames, size=self.size))


class PublicFile(NamedTuple):
  """A file that its makers publish.

  Attributes:
    url: where it is.
    sha256: hexadecimal, or as much of its beginning as is known, or UNKNOWN.
    holds: what it is.
  """

  url: str
  sha256: str
  holds: str


def rename(
  state: Mapping[str, np.ndarray],
  rules: Mapping[str, Rule],
  ignored: Iterable[str] = (),
) -> dict[str, np.ndarray]:
  """Arrays by our names, through a table of the public ones.

  Args:
    state: arrays by their public names.
    rules: public name to (our name, what happens to the axes).
    ignored: beginnings of public names that are not needed.

  Raises:
    ValueError: a name of the table is missing, or one is in no table.
  """
  missing = [name for name in rules if name not in state]
  known = (*rules, *ignored)
  extra = [name for name in state if not name.startswith(known)]
  check_names(missing, extra)
  return {
    ours: change(np.asarray(state[name], np.float32))
    for name, (ours, change) in rules.items()
  }


def rename_back(
  arrays: Mapping[str, np.ndarray], rules: Mapping[str, TwoWays]
) -> dict[str, np.ndarray]:
  """Arrays by their public names, through the table that `rename` reads.

  Raises:
    ValueError: a name of the table is missing, or one is in no table.
  """
  known = {ours for ours, _ in rules.values()}
  missing = [name for name in known if name not in arrays]
  check_names(sorted(missing), [name for name in arrays if name not in known])
  return {
    name: change.back(arrays[ours]) for name, (ours, change) in rules.items()
  }


def check_stage(
  layout: str,
  stage: Mapping[str, Any],
  fixed: Mapping[str, Mapping[str, Any]],
) -> None:
  """ValueError for a tokenizer that a public layout does not hold.

  Args:
    layout: its name.
    stage: the `stage` group of the tokenizer.
    fixed: 'backbone' and 'quantizer', the arguments that the layout fixes; the
      first is their 'name'.
  """
  families = {"backbone": "tokenizers", "quantizer": "quantizers"}
  for group, family in families.items():
    given = stage[group]
    kind = registry.load(family, given["name"])
    for key, value in fixed[group].items():
      found = given.get(key, getattr(kind, key, None))
      if found != value:
        raise ValueError(
          f"stage.{group}.{key} is {found!r}; the layout of {layout} holds "
          f"{value!r} alone, so this tokenizer cannot be written in it"
        )


def check_names(missing: list[str], extra: list[str]) -> None:
  """ValueError if either list has names; the first three are shown."""
  for what, found in (("missing", missing), ("unknown", extra)):
    if found:
      raise ValueError(
        f"{len(found)} {what} arrays: {', '.join(found[:SHOWN])}"
        f"{' …' if len(found) > SHOWN else ''}; is --from the source of these "
        "files, and are all of them given?"
      )


def checksum_text(
  path: str | os.PathLike[str], files: Mapping[str, PublicFile]
) -> str:
  """One line on whether a file is the public one of its name."""
  path = pathlib.Path(path)
  found = checksum.file_sha256(path)
  public = files.get(path.name)
  if public is None:
    return f"{path}: sha256 {found}; no public file has this name"
  if public.sha256 == UNKNOWN:
    return f"{path}: sha256 {found}; the published one is not known"
  if found.startswith(public.sha256):
    return f"{path}: sha256 {found}, as published"
  return (
    f"{path}: sha256 {found}, but the published file has {public.sha256}…; "
    f"it is at {public.url}"
  )
