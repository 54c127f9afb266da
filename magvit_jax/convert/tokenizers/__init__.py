"""Public tokenizers, to our names and back. Each file defines

  FILES                   the public files by name, as `PublicFile`s
  MODELS                  the published nets by name, as `Model`s
  select(state)           arrays of a public file -> those of the tokenizer, by
                          the names that its module gives them: drops what only
                          training needs, and takes averages over raw weights
  convert(state, stage)   the arrays of `select` -> arrays by our names, flat:
                          'backbone/encoder/stem/kernel'
  public(arrays, stage)   the inverse of `convert`

`stage` is the `stage` group of a config, of any width and depth that the public
layout can hold.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from magvit_jax import registry


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
