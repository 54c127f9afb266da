"""Tables of array names, public and ours, and what happens to the axes.

A table is read forwards by `rename` and backwards by `rename_back`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

SHOWN = 3  # names that an error lists


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


def check_names(missing: list[str], extra: list[str]) -> None:
  """ValueError if either list has names; the first three are shown."""
  for what, found in (("missing", missing), ("unknown", extra)):
    if found:
      raise ValueError(
        f"{len(found)} {what} arrays: {', '.join(found[:SHOWN])}"
        f"{' …' if len(found) > SHOWN else ''}; is --from the source of these "
        "files, and are all of them given?"
      )
