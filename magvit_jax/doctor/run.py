"""A run as the checks see it: config, rows of metrics.jsonl, saved weights."""

import functools
from typing import Any

import numpy as np

from magvit_jax import registry, tokenizers, tree_utils
from magvit_jax.doctor import _defaults, saved
from magvit_jax.files import paths, workdirs
from magvit_jax.monitoring import incidents, loss_spikes
from magvit_jax.report import curves, gather
from magvit_jax.types import PyTree

MIN_ROWS = 10  # fewer rows make no curve
NEEDED = ("stage", "steps", "batch", "data")


class Run:
  """What a workdir holds; checkpoints are read when a check asks for them.

  Attributes:
    path: the workdir.
    config: the resolved config with the defaults of its components, plain.
    notes: what could not be read.
    train: rows of steps that were applied.
    bad: rows of steps that were not, as something was not finite.
    incidents: what went wrong, in the order of time; see `incidents.read`.
    done: whether the last step was reached.

  Raises:
    OSError: the folder has no config.json.
    ValueError: its config.json is not of a run of this package.
  """

  def __init__(self, folder: paths.Name):
    self.path = paths.as_path(folder)
    document = workdirs.read_config(self.path)
    config = document.get("config") if isinstance(document, dict) else None
    missing = [k for k in NEEDED if k not in (config or {})]
    if missing:
      raise ValueError(
        f"{self.path / 'config.json'} has no config.{missing[0]}, so that it "
        "is not of a run of this package; give the folder that was --workdir "
        "in training"
      )
    self.config = _defaults.filled(config)
    # To build from; a filled one has arguments that the owner sets.
    self._stage = registry.plain(config["stage"])
    self.notes: list[str] = []
    rows = gather.read_rows(self.path / "metrics.jsonl", self.notes)
    self.rows = [
      row
      for row in rows
      if isinstance(row, dict) and isinstance(row.get("step"), int)
    ]
    train = self.of("train")
    self.train = [row for row in train if not row.get("bad")]
    self.bad = [row for row in train if row.get("bad")]
    self.incidents = incidents.read(self.path)
    self.done = (self.path / "DONE").exists()

  def of(self, kind: str) -> list[dict[str, Any]]:
    """Rows of one kind, in the order of training."""
    return [row for row in self.rows if row.get("kind") == kind]

  def told(self, kind: str) -> list[dict[str, Any]]:
    """Incidents of one kind; one of a step that was taken twice is there once.

    Each process tells its own.
    """
    rows = [row for row in self.incidents if row.get("kind") == kind]
    return list({(row["step"], row["process"]): row for row in rows}.values())

  def get(self, key: str, default: Any = None) -> Any:
    """The config's value at 'a.b.c', or `default` where there is none."""
    value = self.config
    for part in key.split("."):
      if not isinstance(value, dict) or part not in value:
        return default
      value = value[part]
    return value

  @property
  def step(self) -> int:
    """The last step that left a row, 0 before the first."""
    return max((row["step"] for row in self.rows), default=0)

  @property
  def steps(self) -> int:
    """Length of the run."""
    return self.config["steps"]

  @property
  def is_tokenizer(self) -> bool:
    """Whether the run trains a tokenizer."""
    return self.get("stage.name") == "tokenizer"

  def series(
    self, key: str, kind: str = "train"
  ) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values), the finite values of a key over the rows that count."""
    rows = self.train if kind == "train" else self.of(kind)
    curve = curves.series(rows, key)
    return np.asarray(curve.steps, int), np.asarray(curve.values, float)

  def values(self, key: str) -> np.ndarray:
    """The finite values of a training term; [] if too few for a curve."""
    values = self.series(key)[1]
    return values if len(values) >= MIN_ROWS else values[:0]

  def last(self, key: str) -> float | None:
    """The latest evaluation's value of a key, None where it has none."""
    values = self.series(key, "eval")[1]
    return float(values[-1]) if len(values) else None

  @functools.cached_property
  def main_term(self) -> str:
    """The term that says how well it does: of reconstruction, or tokens."""
    return loss_spikes.main_term(n for row in self.train for n in row)

  @functools.cached_property
  def module(self) -> tokenizers.Tokenizer | None:
    """The tokenizer that is trained, or None where this code has no such."""
    try:
      return tokenizers.build_tokenizer(self._stage)
    except (KeyError, TypeError, ValueError):
      return None

  @functools.cached_property
  def tokens(self) -> int:
    """Latents of one clip, 0 where it is not known."""
    clip = (self.get("data.frames"), *(self.get("data.size") or ()))
    if self.module is None or None in clip or len(clip) != 3:
      return 0
    return int(np.prod(self.module.latent_shape(*clip)[:3]))

  @functools.cached_property
  def checkpoints(self) -> dict[int, str]:
    """By step, what is damaged of a checkpoint; '' where it is whole."""
    return saved.faults(self.path)

  @functools.cached_property
  def weights(self) -> dict[str, np.ndarray]:
    """'params/…' and 'ema/…' of the newest whole checkpoint; {} if none is."""
    whole = [step for step, fault in self.checkpoints.items() if not fault]
    if not whole:
      return {}
    found: dict[str, PyTree] = {}
    for item in ("params", "ema"):
      for name, leaf in tree_utils.named(
        saved.read(self.path, whole[-1], item)
      ).items():
        found[f"{item}/{name}"] = np.asarray(leaf)
    return found


def lr_times(run: Run, factor: float) -> str:
  """'stage.optim.lr=…', the run's rate times a factor, for a cure."""
  lr = run.get("stage.optim.lr")
  if lr is None:
    return f"a {'higher' if factor > 1 else 'lower'} learning rate"
  return f"stage.optim.lr={lr * factor:.2g}"


def ends(values: np.ndarray) -> tuple[float, float]:
  """Medians of the first and of the last fifth."""
  part = max(1, len(values) // 5)
  return float(np.median(values[:part])), float(np.median(values[-part:]))
