"""Curves and histograms as SVG that follows the colours of the page."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from magvit_jax.report.page import COLOURS

# matplotlib wants a colour; the page wants text in its own. This one stands
# for it and is replaced in the SVG text.
INK = "#010203"
LARGE, SMALL = (5.2, 2.9), (3.4, 2.1)  # inches
GRID = "#8f98a6"
STYLE = {
  "svg.fonttype": "none",  # text stays text: small, legible, searchable
  "font.family": "sans-serif",
  "font.size": 9.5,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.edgecolor": GRID,
  "axes.labelcolor": INK,
  "axes.titlecolor": INK,
  "axes.titlesize": 10.5,
  "axes.titleweight": "bold",
  "axes.titlelocation": "left",
  "text.color": INK,
  "xtick.color": INK,
  "ytick.color": INK,
  "xtick.major.size": 0,
  "ytick.major.size": 0,
  "axes.grid": True,
  "grid.color": GRID,
  "grid.alpha": 0.3,
  "grid.linewidth": 0.6,
  "legend.frameon": False,
  "legend.fontsize": 9,
}


class Curve(NamedTuple):
  """One line of a plot: values [n] at steps [n]."""

  label: str
  steps: Sequence[float]
  values: Sequence[float]
  dashed: bool = False


def series(
  rows: Sequence[Mapping], key: str, label: str = "", dashed: bool = False
) -> Curve:
  """The finite values of a key over the rows that have it."""
  pairs = [
    (row["step"], row[key])
    for row in rows
    if isinstance(row.get(key), (int, float)) and np.isfinite(row[key])
  ]
  steps, values = zip(*pairs, strict=True) if pairs else ((), ())
  return Curve(label or key, steps, values, dashed)


def smooth(values: np.ndarray, share: float = 0.03) -> np.ndarray:
  """Centred running mean over `share` of the values, the ends included."""
  width = max(1, round(len(values) * share)) // 2
  total = np.concatenate([[0.0], np.cumsum(values)])
  k = np.arange(len(values))
  low, high = np.maximum(k - width, 0), np.minimum(k + width + 1, len(values))
  return (total[high] - total[low]) / (high - low)


def plot(
  title: str,
  unit: str,
  curves: Sequence[Curve],
  size: tuple[float, float] = LARGE,
) -> str:
  """A plot over training steps as inline SVG; '' if nothing has values."""
  curves = [c for c in curves if len(c.values)]
  if not curves:
    return ""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.locator_params(nbins=6 if size == LARGE else 5)
    for k, curve in enumerate(curves):
      again = curve.dashed or k >= len(COLOURS)  # the same colours, dashed
      _draw(axes, curve._replace(dashed=again), COLOURS[k % len(COLOURS)])
    everything = np.concatenate([np.asarray(c.values, float) for c in curves])
    if everything.min() > 0 and everything.max() > 50 * everything.min():
      axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    if len(curves) > 1:
      axes.legend(ncols=1 + (len(curves) > 4))
    return svg(figure, title)


def _draw(axes, curve: Curve, colour: str) -> None:
  values = np.asarray(curve.values, float)
  line = "--" if curve.dashed else "-"
  mark = "o" if len(values) <= 40 else ""
  if len(values) > 100:
    axes.plot(curve.steps, values, color=colour, lw=0.6, alpha=0.35)
    values, mark = smooth(values), ""
  axes.plot(
    curve.steps,
    values,
    line,
    color=colour,
    lw=1.6,
    marker=mark,
    markersize=3,
    label=curve.label,
  )


def histogram(title: str, counts: np.ndarray) -> str:
  """Share of each id, most frequent first, against a uniform vocabulary."""
  share = np.sort(np.asarray(counts, float))[::-1]
  share = 100 * share / max(share.sum(), 1)
  # Two thousand bars are more than the plot has columns.
  rank = np.unique(np.linspace(0, len(share) - 1, 2000).astype(int))
  edges = np.append(rank, len(share)) + 0.5
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=LARGE, layout="constrained")
    axes = figure.subplots()
    axes.stairs(share[rank], edges, fill=True, color=COLOURS[0], alpha=0.8)
    axes.axhline(100 / len(share), color=COLOURS[1], ls="--", lw=1.4)
    axes.annotate(
      "uniform",
      (1, 100 / len(share)),
      xycoords=("axes fraction", "data"),
      xytext=(0, 3),
      textcoords="offset points",
      ha="right",
      color=COLOURS[1],
    )
    axes.set_xlim(0.5, len(share) + 0.5)
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_xlabel("ids, most frequent first")
    axes.set_ylabel("% of tokens")
    return svg(figure, title)


def svg(figure: Figure, name: str) -> str:
  """The figure as inline SVG; `name` keeps its ids apart from others'."""
  buffer = io.StringIO()
  with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
    figure.savefig(
      buffer, format="svg", transparent=True, metadata={"Date": None}
    )
  text = buffer.getvalue()
  text = text[text.index("<svg") :]
  return text.replace(INK, "currentColor")
