"""Sections of numbers: the table of metrics with the floor, and the curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from magvit_jax.report import curves
from magvit_jax.report.gather import Workdir, last
from magvit_jax.report.page import (
  Number,
  Raw,
  Section,
  escape,
  number,
  paragraph,
  table,
)

# name: (what it is, unit, digits, whether more is better)
METRICS = {
  "cross_entropy": (
    "nats per masked token, summed over factors",
    "nats",
    3,
    False,
  ),
  "cross_entropy_unigram": (
    "the baseline: frequencies of training ids (add one), same positions",
    "nats",
    3,
    False,
  ),
  "token_accuracy": ("predicted ids that are the true ones", "", 4, True),
  "token_accuracy_repeat": (
    "the baseline: repeating the last given latent frame",
    "",
    4,
    True,
  ),
  "psnr_predicted": ("frames that were not given", "dB", 2, True),
  "psnr_repeat": (
    "the baseline: repeating the last given latent frame, decoded",
    "dB",
    2,
    True,
  ),
  "psnr_still": ("the baseline: repeating the last given frame", "dB", 2, True),
  "psnr_ceiling": ("the tokenizer's own reconstruction", "dB", 2, True),
  "psnr": ("mean over frames, then clips, then files", "dB", 2, True),
  "psnr_box": (
    "the floor: PSNR of mean colours at the token grid, unquantized",
    "dB",
    2,
    True,
  ),
  "ssim": ("11x11 Gaussian window, averaged as psnr is", "", 4, True),
  "usage": ("share of the vocabulary seen, per factor", "", 4, True),
  "perplexity": ("effective number of ids, per factor", "", 1, True),
  "bits_per_pixel": ("ids at fixed length", "", 4, False),
  "bits_used_per_pixel": (
    "entropy of single ids: what an ideal coder needs",
    "",
    4,
    False,
  ),
}
NOT_CURVES = ("step", "kind", "data_share")
IF_NOT_ZERO = ("bad", "skipped")


def results(run: Workdir) -> Section:
  """Headline figures and the table of metrics with the floor."""
  columns = _columns(run)
  if not columns:
    return Section(
      "Results",
      paragraph(
        "Nothing is measured yet. The loop measures every eval.every steps; "
        "python -m magvit_jax evaluate measures the newest checkpoint.",
        "soft",
      ),
    )
  title, main = next(iter(columns.items()))
  there = dict.fromkeys(k for c in columns.values() for k in c)
  names = sorted(there, key=[*METRICS, *there].index)
  rows = [
    [Raw(f"<b>{escape(name)}</b>")]
    + [_value(name, column.get(name)) for column in columns.values()]
    + [METRICS.get(name, ("",))[0]]
    for name in names
  ]
  return Section(
    "Results",
    paragraph(f"Held-out clips; {title}.", "soft")
    + _cards(main)
    + table(["metric", *columns, "what it is"], rows),
  )


def _columns(run: Workdir) -> dict[str, dict[str, float]]:
  """Metrics by the heading of their column, the main one first."""
  columns = {}
  evals = [metrics_of(row) for row in run.of("eval")]
  if evals:
    columns[f"step {last(run.of('eval')).get('step', '?')}"] = evals[-1]
  if len(evals) > 1:
    columns["best in training"] = {
      name: (max if METRICS.get(name, ("", "", 0, True))[3] else min)(
        row[name] for row in evals if name in row
      )
      for name in evals[-1]
    }
  for file, content in run.evaluations.items():
    columns[f"{file}, step {content['step']}"] = {
      k: v for k, v in content["metrics"].items() if v is not None
    }
  return columns


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
  """The metrics of a row of kind 'eval' by name."""
  return {
    key.removeprefix("eval_"): value
    for key, value in row.items()
    if key.startswith("eval_") and isinstance(value, (int, float))
  }


def _value(name: str, value: float | None) -> Number:
  _, unit, digits, _ = METRICS.get(name, ("", "", 4, True))
  return Number("–") if value is None else number(value, digits, unit)


# name, label, unit, digits
CARDS = (
  ("cross_entropy", "cross-entropy per token", "nats", 3),
  ("cross_entropy_unigram", "baseline: unigram", "nats", 3),
  ("psnr_predicted", "PSNR of predicted frames", "dB", 2),
  ("psnr_repeat", "baseline: repeat last tokens", "dB", 2),
  ("psnr_still", "baseline: repeat last frame", "dB", 2),
  ("psnr_ceiling", "ceiling: reconstruction", "dB", 2),
  ("token_accuracy", "token accuracy", "", 3),
  ("token_accuracy_repeat", "baseline: repeat last tokens", "", 3),
  ("psnr", "PSNR", "dB", 2),
  ("psnr_box", "floor: box means", "dB", 2),
  ("ssim", "SSIM", "", 3),
  ("bits_per_pixel", "bits per pixel", "", 4),
  ("usage", "codebook usage", "", 3),
)
# baseline: (what is compared with it, label of the difference); a card more
MARGINS = {
  "cross_entropy_unigram": ("cross_entropy", "below the unigram"),
  "psnr_repeat": ("psnr_predicted", "above repeating tokens"),
  "psnr_box": ("psnr", "above the floor"),
}


def _cards(metrics: Mapping[str, float]) -> str:
  html = ""
  for name, label, unit, digits in CARDS:
    if name not in metrics:
      continue
    html += _card(f"{metrics[name]:.{digits}f}", unit, label)
    other, label = MARGINS.get(name, ("", ""))
    if other in metrics:
      margin = metrics[other] - metrics[name]
      margin = margin if METRICS[name][3] else -margin
      style = "good" if margin > 0 else "bad"
      html += _card(f"{margin:+.{digits}f}", unit, label, style)
  return f'<div class="cards">{html}</div>'


def _card(value: str, unit: str, label: str, style: str = "") -> str:
  return (
    f'<div><b class="{style}">{value} <small>{unit}</small></b>'
    f"<span>{label}</span></div>"
  )


def training(run: Workdir) -> Section | None:
  """Curves of training and of the evaluations during it."""
  train, evals = run.of("train"), run.of("eval")
  keys = [
    key
    for key in dict.fromkeys(k for row in train for k in row)
    if key not in NOT_CURVES and not key.startswith("seconds_")
    if key not in IF_NOT_ZERO or any(row.get(key) for row in train)
  ]
  loss = [k for k in keys if k == "loss" or k.endswith("_loss")]
  weighted = tuple(run.config["stage"].get("weights", ()))
  terms = [
    k for k in keys if k in weighted or k.startswith(("loss_", "g_", "d_"))
  ]
  rest = [k for k in keys if k not in loss + terms]
  large = [
    curves.plot(
      "Cross-entropy of held-out tokens",
      "nats per token",
      [
        curves.series(evals, "eval_cross_entropy", "generator"),
        curves.series(evals, "eval_cross_entropy_unigram", "unigram", True),
      ],
    ),
    curves.plot(
      "PSNR of predicted frames",
      "dB",
      [
        curves.series(evals, "eval_psnr_predicted", "predicted"),
        curves.series(evals, "eval_psnr_repeat", "repeat last given", True),
        curves.series(evals, "eval_psnr_still", "still frame", True),
        curves.series(evals, "eval_psnr_ceiling", "ceiling", True),
      ],
    ),
    curves.plot(
      "PSNR on held-out clips",
      "dB",
      [
        curves.series(evals, "eval_psnr", "reconstruction"),
        curves.series(evals, "eval_psnr_box", "box means (floor)", dashed=True),
      ],
    ),
    curves.plot("Loss", "", _series(train, loss)),
    curves.plot("Terms of the loss", "", _series(train, terms)),
  ]
  small = [
    curves.plot(title, "", [curves.series(rows, key)], curves.SMALL)
    for rows, key, title in (
      (evals, "eval_ssim", "SSIM on held-out clips"),
      (evals, "eval_usage", "Codebook usage"),
      (evals, "eval_perplexity", "Perplexity"),
      *((train, key, key.replace("_", " ")) for key in rest),
    )
  ]
  if not any(large + small):
    return None
  return Section("Training", _grid("plots", large) + _grid("minor", small))


def _grid(style: str, plots: Sequence[str]) -> str:
  figures = "".join(f"<figure>{plot}</figure>" for plot in plots if plot)
  return f'<div class="{style}">{figures}</div>' if figures else ""


def _series(rows: Sequence[Mapping], keys: Sequence[str]) -> list[curves.Curve]:
  return [curves.series(rows, key) for key in keys]
