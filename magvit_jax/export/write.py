"""Makes the folder of an export from a workdir."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import magvit_jax
from magvit_jax import export, messages, tokenizers, tree_utils
from magvit_jax.checkpoints import (
  checkpointer,
  checksum,
  frozen_params,
  saved_weights,
)
from magvit_jax.export import card, programs
from magvit_jax.files import paths, weight_file, workdirs
from magvit_jax.inference import sampler
from magvit_jax.types import PyTree

STAGES = ("tokenizer", "generator")
DTYPES = ("auto", "float32", "bfloat16")


def write(
  folder: paths.Name,
  out: str | os.PathLike[str],
  *,
  platforms: Sequence[str] = ("cpu", "tpu", "cuda"),
  dtype: str | None = None,
  step: int | None = None,
  license: str = card.LICENSE,
) -> pathlib.Path:
  """Exports what was trained in a workdir.

  Args:
    folder: the workdir, or a folder of weights.
    out: folder to make; it appears when it is whole.
    platforms: that the programs are for, keys of programs.PLATFORMS.
    dtype: that they compute in; None is as the run says. Weights are float32.
    step: checkpoint; None is the newest, which must be whole.
    license: of the weights, for the card.

  Returns:
    The folder.

  Raises:
    FileExistsError: it has something in it.
    OSError: no run, no checkpoint, or it cannot be written.
    ValueError: another stage, or an unknown platform or dtype.
  """
  out = check_out(out)
  programs.check_platforms(platforms)
  run = workdirs.read_config(folder)
  config = network(saved_weights.config(folder), dtype)
  step = newest(folder) if step is None else step
  weights = load(folder, config, step)
  with making(out) as part:
    exported = save_programs(part, config, platforms)
    arrays = {k: np.asarray(v) for k, v in tree_utils.named(weights).items()}
    weight_file.write(
      part / saved_weights.PARAMS, arrays, {"format": "magvit_jax"}
    )
    about = describe(part, config, step, exported, weights)
    about["platforms"] = list(platforms)
    text = card.write(folder, run, about, out.name, license)
    (part / export.CARD).write_text(text, encoding="utf-8")
    text = json.dumps(about, indent=2) + "\n"
    (part / "config.json").write_text(text, encoding="utf-8")
  return out


def check_out(out: str | os.PathLike[str]) -> pathlib.Path:
  """The folder to make; FileExistsError if there is something in it."""
  if paths.is_remote(out):
    raise ValueError(
      f"--out={out}: an export is made on a disk of this machine; copy it to "
      "where it should go"
    )
  path = paths.as_path(out).absolute()
  if path.exists() and not (path.is_dir() and not any(path.iterdir())):
    raise FileExistsError(
      f"--out={out} already exists, and nothing is ever overwritten; choose "
      "another folder or delete it"
    )
  return path


def network(config: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
  """What of a run's config says which network it is; no paths.

  Args:
    config: `config` of a config.json, plain.
    dtype: replaces those of its parts, unless it is None.
  """
  stage = config["stage"]
  messages.check_choice("the stage of the workdir", stage["name"], STAGES)
  if dtype is not None:
    messages.check_choice("--dtype", dtype, DTYPES)
  change = {} if dtype is None else {"dtype": dtype}
  if stage["name"] == "tokenizer":
    keep = ("name", *frozen_params.PARTS)
    data = {k: config["data"][k] for k in ("frames", "size")}
    return {"stage": {**_only(stage, keep), **change}, "data": data}
  own = _only(stage, ("name", "generator", "tasks", "sampling", "dtype"))
  tokenizer = _only(config["tokenizer"], (*frozen_params.PARTS, "fingerprint"))
  return {
    "stage": {**own, **change},
    "tokenizer": {**tokenizer, **change},
    "clips": config["clips"],
  }


def _only(group: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
  return {key: group[key] for key in keys}


def newest(folder: paths.Name) -> int | None:
  """The newest checkpoint; None for a folder of weights alone.

  What is published should be the step that is meant: a damaged one is said,
  not passed over.
  """
  if saved_weights.is_folder(folder):
    return saved_weights.document(folder).get("step")
  found = checkpointer.steps(folder)
  return found[-1] if found else None


def load(
  folder: paths.Name, config: Mapping[str, Any], step: int | None
) -> PyTree:
  """All weights of the model, as programs.abstract says."""
  abstract = programs.weight_shapes(config)
  if config["stage"]["name"] == "tokenizer":
    return saved_weights.weights(folder, abstract, step)
  return sampler.load_weights(folder, config, abstract["generator"], step)


@contextlib.contextmanager
def making(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder that becomes `out` if the block ends without an error."""
  part = out.with_name(f".{out.name}.{os.getpid()}.part")
  part.mkdir(parents=True)
  try:
    yield part
    part.rename(out)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def save_programs(
  folder: pathlib.Path, config: Mapping[str, Any], platforms: Sequence[str]
) -> dict[str, Any]:
  """Traces and writes every program; returns what each takes and gives."""
  shapes, found = programs.weight_shapes(config), {}
  for name, program in programs.programs(config).items():
    exported = programs.export(name, program, shapes, platforms)
    file = export.program_file(name)
    (folder / file).write_bytes(exported.serialize())
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    found[name] = {
      "file": file,
      "arguments": {
        "params": f"the arrays of {saved_weights.PARAMS}, a flat dict by name",
        **{k: _spec(v) for k, v in program.arguments.items()},
      },
      "results": jax.tree.map(_spec, results),
    }
  return found


def _spec(array: Any) -> dict[str, Any]:
  """Shape and dtype as JSON; symbols are strings such as '4*k - 3'."""
  shape = [n if isinstance(n, int) else str(n) for n in array.shape]
  return {"shape": shape, "dtype": str(array.dtype)}


def describe(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  step: int | None,
  exported: Mapping[str, Any],
  weights: PyTree,
) -> dict[str, Any]:
  """config.json; the card, which quotes it, comes later."""
  made = config["stage"]["name"] == "generator"
  stage = config["tokenizer"] if made else config["stage"]
  module = tokenizers.build_tokenizer(stage)
  first = exported["sample" if made else "encode"]["arguments"]["video"]
  if made:
    clip = list(config["clips"]["shape"])
  else:
    clip = [config["data"]["frames"], *config["data"]["size"], 3]
  latents = (1, *module.latent_shape(*clip[:3]))
  about = {
    "layout": saved_weights.LAYOUT,
    "magvit_jax": magvit_jax.__version__,
    "jax": jax.__version__,
    "kind": config["stage"]["name"],
    "step": step,
    "video": {"pixels": "in [-1, 1]", **first},
    "clip": clip,
    "grid": list(module.quantizer.ids_shape(latents)[1:-1]),
    "strides": list(module.strides),
    "causal": bool(module.backbone.causal),
    "sizes": list(module.quantizer.sizes),
    "dtype": config["stage"]["dtype"],
    "weights": tree_utils.count(weights),
    "fingerprint": checksum.fingerprint(
      weights["tokenizer"] if made else weights
    ),
    "programs": exported,
    "config": workdirs.normal(config),
  }
  if made:
    about["tasks"] = sorted(config["stage"]["tasks"])
    about["labels"] = list(config["clips"]["labels"])
  about["files"] = {
    path.name: {
      "bytes": path.stat().st_size,
      "sha256": checksum.file_sha256(path),
    }
    for path in sorted(folder.iterdir())
  }
  return about
