"""Sections of facts: the split, where the time went, the configuration."""

import json
import statistics
from collections.abc import Mapping
from typing import Any

from magvit_jax.monitoring import goodput
from magvit_jax.report.gather import Workdir
from magvit_jax.report.page import (
  COLOURS,
  Raw,
  Section,
  escape,
  number,
  paragraph,
  table,
)

MAX_FILES = 40


def split(run: Workdir) -> Section | None:
  """What was trained on and what was held out."""
  if not run.split:
    return None
  sides = list(
    dict.fromkeys(k for counts in run.split.values() for k in counts)
  )
  rows = [
    [name, *(counts.get(side, 0) for side in sides)]
    for name, counts in run.split.items()
  ]
  total = [
    "in all",
    *(sum(column) for column in list(zip(*rows, strict=True))[1:]),
  ]
  left = len(rows) - MAX_FILES
  more = f" {left} more files are left out of the table." if left > 0 else ""
  text = (
    "Frames of each file (pictures of each class, for digits) on either side. "
    "Evaluation reads a fixed list of windows wholly inside the held-out side."
    f"{more}"
  )
  return Section(
    "Split",
    paragraph(text, "soft")
    + table(["file", *sides], [*rows[:MAX_FILES], total]),
  )


def time(run: Workdir) -> Section | None:
  """Where the seconds went."""
  seconds = goodput.add_up(run.of("time"))
  total = sum(seconds.values())
  if not total:
    return None
  order = sorted(seconds.items(), key=lambda pair: -pair[1])
  colour = {k: COLOURS[i % len(COLOURS)] for i, (k, _) in enumerate(order)}
  bar = "".join(
    f'<div style="width:{100 * v / total:.3f}%;background:{colour[k]}" '
    f'title="{escape(k)}"></div>'
    for k, v in order
  )
  rows = [
    (
      Raw(
        f'<span class="key" style="background:{colour[k]}"></span>{escape(k)}'
      ),
      number(v, 1, "s"),
      number(100 * v / total, 1, "%"),
    )
    for k, v in order
  ]
  text = (
    f"{total / 60:.1f} minutes in all, restarts included; "
    f"{100 * seconds.get('step', 0.0) / total:.1f} % of them were spent in "
    f"steps (goodput). Training waited for data during "
    f"{_waiting(seconds):.1f} % of the time of its steps.{_speed(run)}"
  )
  return Section(
    "Where the time went",
    paragraph(text, "soft")
    + f'<div class="bar">{bar}</div>'
    + table(["part", "time", "share"], rows),
  )


def _waiting(seconds: Mapping[str, float]) -> float:
  data, step = seconds.get("data", 0.0), seconds.get("step", 0.0)
  return 100 * data / max(data + step, 1e-9)


def _speed(run: Workdir) -> str:
  """A sentence on the median step."""
  rows = run.of("train")

  def median(key):
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.median(values) if values else None

  step, rate, mfu = map(median, ("seconds_step", "examples_per_second", "mfu"))
  if step is None or rate is None:
    return ""
  share = "" if mfu is None else f", {100 * mfu:.1f} % of the peak FLOPs (MFU)"
  return f" The median step took {step:.3g} s: {rate:.3g} examples/s{share}."


ABOUT = ("git", "versions", "hardware")


def configuration(run: Workdir) -> Section:
  """The resolved config and what it ran on."""
  rows = [(key, _flat(value)) for key in ABOUT if (value := run.about.get(key))]
  text = json.dumps(run.config, indent=2, default=str)
  return Section(
    "Configuration",
    table(["", ""], rows)
    + "<details><summary>The resolved config</summary>"
    + f"<pre>{escape(text)}</pre></details>",
  )


def _flat(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
  return str(value)
