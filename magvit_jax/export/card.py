"""The model card of an export: what the run's files say, and nothing else."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from magvit_jax.files import paths
from magvit_jax.report import measures

LICENSE = "unknown: ask who trained it"
# Also in the README; {folder} is the export's.
READER = """\
import json, pathlib, jax, numpy as np
from jax import export
from safetensors.numpy import load_file

folder = pathlib.Path("{folder}")
about = json.loads((folder / "config.json").read_text())
params = jax.device_put(load_file(folder / "params.safetensors"))
programs = {{
  f.stem: jax.jit(export.deserialize(bytearray(f.read_bytes())).call)
  for f in folder.glob("*.stablehlo")
}}
video = np.zeros([1, *about["clip"]], np.float32)  # [b t h w 3] in [-1, 1]
ids = programs["encode"](params, video)  # int32 [b T H W f]
video = programs["decode"](params, ids)  # float32 [b t h w 3]
"""
SAMPLE = """\
b = 4  # clips; a label that is no class, such as -1, gives none
made = programs["sample"](
    params, np.zeros([b, *about["clip"]], np.float32),  # what tasks are given
    np.full(b, about["tasks"].index("{task}"), np.int32),
    np.full(b, {label}, np.int32), np.uint32(0))        # label, seed
video = made["video"]  # float32 [b t h w 3] in [-1, 1]; made["ids"] int32
"""
OURS = """\
import magvit_jax
model = magvit_jax.load_{kind}("{folder}")
"""
PROTOCOL = ("frames", "size", "stride", "fps", "lines")


def write(
  workdir: paths.Name,
  run: Mapping[str, Any],
  about: Mapping[str, Any],
  title: str,
  license: str,
) -> str:
  """The card as Markdown.

  Args:
    workdir: folder of the run.
    run: its config.json.
    about: config.json of the export.
    title: name of the export.
    license: of the weights.
  """
  made = about["kind"] == "generator"
  parts = [
    f"# {title}",
    _what(about),
    "## The network",
    _table(_network(about)),
    "## Trained on",
    _table(_training(run, about)),
    "## Measured",
    _measured(paths.as_path(workdir), run["config"], about),
    "## Licence",
    "The code is under the Apache-2.0 licence. The licence of the weights: "
    f"{license}.",
    "## Files",
    _table([(k, f"{v['bytes']:,} bytes, sha256 `{v['sha256']}`")
            for k, v in about["files"].items()]),
    "## How to load it",
    "With `pip install jax numpy safetensors flatbuffers` (jax.export reads "
    f"its files with the last), on {', '.join(about['platforms'])}:",
    _code(READER.format(folder=title) + (_sample(about) if made else "")),
    "With magvit_jax, for any length and frame size:",
    _code(OURS.format(kind=about["kind"], folder=title)),
    "## Use and limits",
    _limits(about),
  ]  # fmt: skip
  return "\n\n".join(parts) + "\n"


def _what(about: Mapping[str, Any]) -> str:
  origin = f"magvit_jax {about['magvit_jax']}"
  if about["step"] is not None:
    origin += f" after step {about['step']:,} of its training"
  if about["kind"] == "tokenizer":
    what = "turns video into discrete tokens and back"
  else:
    what = "makes video from a class or from a part of a clip"
  return f"A {about['kind']} that {what}, exported by {origin}."


def _network(about: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
  made = about["kind"] == "generator"
  config = about["config"]
  stage = config["tokenizer"] if made else config["stage"]
  t, h, w, _ = about["clip"]
  grid, sizes = about["grid"], about["sizes"]
  if made:
    own = config["stage"]["generator"]
    yield (
      "generator",
      f"{own['name']}, transformer {own['transformer']['name']}",
    )
    yield "tasks", ", ".join(about["tasks"])
    yield "classes", ", ".join(about["labels"]) or "none"
  yield (
    "tokenizer",
    f"{stage['backbone']['name']} with {stage['quantizer']['name']}",
  )
  yield "weights", f"{about['weights']:,}, averaged over training, in float32"
  yield (
    "computes in",
    about["dtype"]
    + (
      " (float32 on CPU, bfloat16 elsewhere)"
      if about["dtype"] == "auto"
      else ""
    ),
  )
  yield "clips", f"{t} frames of {h}x{w} pixels"
  yield "tokens of a clip", "x".join(map(str, grid))
  yield "ids of a token", " x ".join(map(str, sizes))
  bits = math.prod(grid) * sum(map(math.log2, sizes)) / (t * h * w)
  yield "bits per pixel", f"{bits:.4g}, at fixed length"
  yield "pixels of a token", "{} frames of {}x{}".format(*about["strides"])
  yield "causal in time", "yes" if about["causal"] else "no"
  yield "fingerprint of the tokenizer", about["fingerprint"]


def _training(
  run: Mapping[str, Any], about: Mapping[str, Any]
) -> Iterable[tuple[str, Any]]:
  config = run["config"]
  data = config.get("data", {})
  if "name" in data:
    root = data.get("root")
    where = f", folder {paths.basename(paths.as_path(root))}" if root else ""
    yield "data", data["name"] + where
  if "holdout" in data:
    yield (
      "held out",
      (
        f"a share of {data['holdout']}: of 20 files or more whole files, of "
        "fewer the end of each"
      ),
    )
  yield "clips", _clips(data)
  if about["step"] is not None and "batch" in config:
    yield "steps", f"{about['step']:,} of {config['batch']} clips each"
  if "seed" in config:
    yield "seed", config["seed"]
  for key in ("hardware", "versions"):
    if run.get(key):
      yield key, ", ".join(f"{k} {v}" for k, v in run[key].items())
  if run.get("git"):
    yield "commit", run["git"]


def _clips(data: Mapping[str, Any]) -> str:
  text = {k: str(data[k]) for k in PROTOCOL if k in data}
  if "size" in data:
    text["size"] = "{}x{}".format(*data["size"])
  if not data.get("fps", 1):
    text["fps"] = "as filmed"
  return ", ".join(f"{k} {v}" for k, v in text.items())


def _measured(
  workdir: paths.Path, config: Mapping[str, Any], about: Mapping[str, Any]
) -> str:
  """A table for each evaluation of the run, with how it was measured."""
  parts, known = [], []
  for path in sorted(workdir.glob("evaluation*.json")):
    found = json.loads(paths.read_text(path))
    values = found.pop("metrics", {})
    known.append(values)
    parts.append(_evaluation(path.name, found, values, config, about))
  values = _while_training(workdir, about["step"])
  if values and values not in known:
    settings = {"step": about["step"], "split": "eval"}
    name = "metrics.jsonl, while training"
    parts.append(_evaluation(name, settings, values, config, about))
  return "\n\n".join(parts) or "Nothing: the run has no evaluation."


def _evaluation(
  name: str,
  settings: Mapping[str, Any],
  values: Mapping[str, Any],
  config: Mapping[str, Any],
  about: Mapping[str, Any],
) -> str:
  how = ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None)
  other = "" if settings.get("step") == about["step"] else (
    " These are other weights than the exported ones."
  )  # fmt: skip
  protocol = f"From {name}: {how}; clips: {_clips(config['data'])}.{other}"
  rows = ["| metric | value | what it is |", "|---|---|---|"]
  for key, value in values.items():
    text, unit, *_ = measures.METRICS.get(key, ("", "", 4))
    number = "not finite" if value is None else f"{value:.4g} {unit}".strip()
    rows.append(f"| {key} | {number} | {text} |")
  return protocol + "\n\n" + "\n".join(rows)


def _while_training(workdir: paths.Path, step: int | None) -> dict[str, Any]:
  """What the evaluation of this step during training gave."""
  path = workdir / "metrics.jsonl"
  if not path.is_file():
    return {}
  for line in paths.read_text(path).splitlines():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue  # a line that was being written when the run was killed
    if row.get("kind") == "eval" and row.get("step") == step:
      return {
        k.removeprefix("eval_"): v
        for k, v in row.items()
        if k.startswith("eval_")
      }
  return {}


def _sample(about: Mapping[str, Any]) -> str:
  task = about["tasks"][0]
  return SAMPLE.format(task=task, label=0 if about["labels"] else -1)


def _limits(about: Mapping[str, Any]) -> str:
  t, h, w, _ = about["clip"]
  frames = about["video"]["shape"][1]
  frames = f"{frames} frames" + ("" if frames == t else ", for any k from 1 on")
  if about["kind"] == "tokenizer":
    first = (
      "For research on video tokens: compression, and models that read or make "
      "tokens. What it gives back is not what it was given: detail is lost."
    )
  else:
    first = (
      "For research on generation of video. What it makes was not filmed: say "
      "so where it is shown."
    )
  lines = [
    first,
    "It was measured on the clips named above; how it does on others, in "
    "content, size or frame rate, was not measured.",
    "Nothing here filters what goes in or comes out.",
    f"The programs take any number b of clips of {frames}, {h}x{w} pixels "
    "each; magvit_jax pads and tiles others.",
    "Ids mean something to the tokenizer of the fingerprint above alone.",
  ]
  return "\n".join(f"- {line}" for line in lines)


def _table(rows: Iterable[tuple[str, Any]]) -> str:
  return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows)])


def _code(text: str) -> str:
  return f"```python\n{text}```"
