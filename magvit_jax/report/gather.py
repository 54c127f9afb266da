"""Everything the report shows of a workdir, read once.

A missing part is normal (a run that is still training has no evaluation, a
folder of videos may have moved): it leaves its field empty and says so in
`notes`, and the sections that need it say so too.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from magvit_jax import registry
from magvit_jax.checkpoints import checksum, trained_run
from magvit_jax.data import transforms
from magvit_jax.files import paths, workdirs
from magvit_jax.inference import sampler
from magvit_jax.metrics import averages, box_means
from magvit_jax.report.made import Made, make
from magvit_jax.training import evaluation

MAX_CLIPS = 64  # clips looked at; shown are fewer
SHOWN = 6
MAX_SHOWN = 12


class Clip(NamedTuple):
  """A held-out clip and its reconstruction.

  Attributes:
    name: file it comes from.
    video, recon: uint8 [t h w 3].
    psnr: dB, mean over frames.
    floor: PSNR of box means, NaN if the run does not measure it.
  """

  name: str
  video: np.ndarray
  recon: np.ndarray
  psnr: float
  floor: float


class Held(NamedTuple):
  """What the tokenizer does with held-out clips.

  Attributes:
    step: training step of the parameters.
    clips: those shown, at least one per file up to `MAX_SHOWN`.
    counts: int [sizes[k]] per factor, how often each id was used.
    seen: number of clips counted.
    fingerprint: of the tokenizer's weights.
  """

  step: int
  clips: tuple[Clip, ...]
  counts: tuple[np.ndarray, ...]
  seen: int
  fingerprint: str


class Workdir(NamedTuple):
  """A run as the report sees it.

  Attributes:
    path: the workdir.
    config: the resolved config.
    about: git commit, versions and hardware, as config.json has them.
    rows: lines of metrics.jsonl.
    done: whether the last step was reached.
    evaluations: contents of evaluation*.json by file name.
    held: pictures and ids, or None.
    split: the source's split_report(), or None.
    notes: what is missing and why.
    made: what a generator made, or None.
    tokenizer: the run of a generator's tokenizer, or None.
    beside: another tokenizer's run of the same clips, or None.
  """

  path: paths.Path
  config: dict[str, Any]
  about: dict[str, Any]
  rows: list[dict[str, Any]]
  done: bool
  evaluations: dict[str, dict[str, Any]]
  held: Held | None
  split: dict[str, Any] | None
  notes: tuple[str, ...]
  made: Made | None = None
  tokenizer: "Workdir | None" = None
  beside: "Workdir | None" = None

  def of(self, kind: str) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of one kind, in the order of training."""
    return [row for row in self.rows if row.get("kind") == kind]


def gather(folder: paths.Name) -> Workdir:
  """Reads a workdir and runs its newest checkpoint on held-out clips.

  Raises:
    OSError: the folder has no config.json.
  """
  path = paths.as_path(folder)
  about = dict(workdirs.read_config(path))
  config = about.pop("config")
  notes: list[str] = []
  held = split = futures = tokenizer = None
  if config["stage"]["name"] == "generator":
    futures, split = _generated(path, config, notes)
    tokenizer = _tokenizer(config, notes)
  else:
    held, split = _held(path, notes)
  return Workdir(
    path=path,
    config=config,
    about=about,
    rows=read_rows(path / "metrics.jsonl", notes),
    done=(path / "DONE").exists(),
    evaluations={
      file.name: json.loads(paths.read_text(file))
      for file in sorted(path.glob("evaluation*.json"))
    },
    held=held,
    split=split,
    notes=tuple(notes),
    made=futures,
    tokenizer=tokenizer,
  )


def _held(
  path: paths.Path, notes: list[str]
) -> tuple[Held | None, dict[str, Any] | None]:
  """Reconstructions of held-out clips, and the split."""
  try:
    run = trained_run.open_run(path)
  except (OSError, ValueError) as error:
    notes.append(f"No pictures: {error}")
    return None, None
  held = look(run)
  if not held.clips:
    notes.append("No pictures: none of the held-out clips can be read")
    held = None
  return held, run.source.split_report()


def _generated(
  path: paths.Path, config: dict[str, Any], notes: list[str]
) -> tuple[Made | None, dict[str, Any] | None]:
  """What a generator makes, and the split of its data."""
  source = split = None
  try:
    source = registry.build("data", config["data"], split="eval")
    split = source.split_report()
  except (OSError, ValueError) as error:
    notes.append(f"No predicted futures: {error}")
  try:
    gen = sampler.load_generator(path)
  except (OSError, ValueError) as error:
    notes.append(f"Nothing generated: {error}")
    return None, split
  return make(gen, source), split


def _tokenizer(config: dict[str, Any], notes: list[str]) -> Workdir | None:
  """The run of the tokenizer that a generator's config names."""
  named = config["tokenizer"]
  try:
    run = gather(named["workdir"])
  except OSError as error:
    notes.append(f"No sections of its tokenizer: {error}")
    return None
  if run.held and run.held.fingerprint != named["fingerprint"]:
    notes.append(
      f"{named['workdir']} holds another tokenizer now than the one this "
      "generator was trained on; the sections of the tokenizer show the new one"
    )
  return run


def read_rows(path: paths.Path, notes: list[str]) -> list[dict[str, Any]]:
  """Lines of metrics.jsonl; one half written is left out and noted."""
  if not path.exists():
    notes.append(f"No curves: {path.name} does not exist yet")
    return []
  rows, broken = [], 0
  for line in paths.read_text(path).splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      broken += 1
  if broken:
    notes.append(f"{broken} unreadable lines of {path.name} were left out")
  return rows


def look(run: trained_run.Run) -> Held:
  """Reconstructs up to `MAX_CLIPS` held-out clips; keeps some and counts."""
  total = len(run.source)
  spread = np.linspace(0, total - 1, min(MAX_CLIPS, total))
  part = evaluation.Picked(run.source, [round(k) for k in spread])
  sizes = tuple(run.stage.context.get("sizes", ()))
  per_file = max(1, SHOWN // max(1, len(part.files)))
  counts = [np.zeros(size, np.int64) for size in sizes]
  clips: list[tuple[int, Clip]] = []
  taken: dict[int, int] = {}
  batches = evaluation.predictions(
    run.predict,
    run.state,
    part,
    batch=run.config["eval"]["batch"],
    label="reconstructing",
  )
  for batch in batches:
    batch = jax.device_get(batch)
    ids = batch["ids"][batch["valid"]].reshape(-1, batch["ids"].shape[-1])
    for k, size in enumerate(sizes):
      counts[k] += np.bincount(ids[:, k], minlength=size)
    for row in np.flatnonzero(batch["valid"]):
      file = int(batch["file"][row])
      if taken.get(file, 0) < per_file and len(clips) < MAX_SHOWN:
        taken[file] = taken.get(file, 0) + 1
        name = pathlib.PurePath(str(part.files[file])).name
        clips.append((file, _clip(batch, row, name, run.config["eval"])))
  clips.sort(key=lambda pair: pair[0])
  return Held(
    run.step,
    tuple(clip for _, clip in clips),
    tuple(counts),
    len(part),
    checksum.fingerprint(run.state.ema),
  )


def _clip(
  batch: dict[str, np.ndarray], row: int, name: str, settings: dict[str, Any]
) -> Clip:
  video, recon = (batch[k][row : row + 1] for k in ("video", "recon"))
  floor = float("nan")
  if "box_means" in settings["metrics"]:
    causal = settings["metrics"]["box_means"].get("causal", True)
    means = box_means.box_means(video, batch["ids"].shape[1:4], causal)
    floor = float(averages.psnr_per_frame(video, means).mean())
  return Clip(
    name,
    transforms.to_uint8(video[0]),
    transforms.to_uint8(recon[0]),
    float(averages.psnr_per_frame(video, recon).mean()),
    floor,
  )


def last(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """The last row, or {}."""
  return rows[-1] if rows else {}
