"""Whole tokenizers: public arrays to a folder of ours, and back.

The folder is an export without programs: params.safetensors, by our flat names,
and config.json. `export --workdir=` of it makes a whole one.
"""

import json
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from magvit_jax import tokenizers, tree_utils
from magvit_jax.checkpoints import saved_weights
from magvit_jax.convert.tokenizers import Model
from magvit_jax.export import write as exporting
from magvit_jax.files import paths, weight_file, workdirs
from magvit_jax.types import PyTree

Arrays = Mapping[str, np.ndarray]
Stage = Mapping[str, Any]


def public_shapes(
  source: types.ModuleType, stage: Stage
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes by public names; no array is made."""
  zero = np.zeros((), np.float32)
  ours = {
    name: np.broadcast_to(zero, leaf.shape)
    for name, leaf in tree_utils.named(
      tokenizers.abstract(tokenizers.build_tokenizer(stage))
    ).items()
  }
  return {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype)
    for name, array in source.public(ours, stage).items()
  }


def to_ours(
  source: types.ModuleType, state: Arrays, model: Model, what: str
) -> PyTree:
  """The params of a tokenizer from the arrays of its public files.

  Args:
    source: a file of this folder that has MODELS.
    state: arrays by the names in the files.
    model: which tokenizer it is.
    what: names the arrays, for errors.

  Raises:
    ValueError: arrays are missing, of another shape or of no use; the first
      three are listed by their public names.
  """
  stage = model.config["stage"]
  state = source.select(state)
  state = weight_file.fit(state, public_shapes(source, stage), what)
  return weight_file.fit(
    source.convert(state, stage),
    tokenizers.abstract(tokenizers.build_tokenizer(stage)),
    what,
  )


def write(out: pathlib.Path, model: Model, params: PyTree) -> None:
  """Writes the folder, which appears under its name when it is whole.

  Args:
    out: what `check_out` of export/write.py gave.
    model: which tokenizer it is.
    params: its weights.

  Raises:
    OSError: it cannot be written.
  """
  with exporting.making(out) as part:
    document = {"config": workdirs.normal(model.config)}
    text = json.dumps(document, indent=2) + "\n"
    (part / "config.json").write_text(text, encoding="utf-8")
    weight_file.write(part / saved_weights.PARAMS, tree_utils.named(params), {})


def read(folder: paths.Name) -> tuple[Stage, dict[str, np.ndarray]]:
  """(stage, averaged weights by flat name) of a tokenizer of ours.

  Args:
    folder: a workdir, an export, or what `write` made.

  Raises:
    ValueError: it holds no tokenizer; and what `export.read.weights` raises.
  """
  stage = saved_weights.config(folder)["stage"]
  if stage["name"] != "tokenizer":
    raise ValueError(
      f"{os.fspath(folder)} holds a run of the stage {stage['name']!r}; only "
      "those of the stage 'tokenizer' have a public layout"
    )
  params = saved_weights.weights(
    folder, tokenizers.abstract(tokenizers.build_tokenizer(stage)), None
  )
  return stage, {k: np.asarray(v) for k, v in tree_utils.named(params).items()}
