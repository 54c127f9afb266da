"""Sections of pictures: strips, animations, the histogram of tokens."""

from collections.abc import Iterable

import numpy as np

from magvit_jax.metrics import histograms
from magvit_jax.report import curves, pictures
from magvit_jax.report.gather import Clip, Workdir
from magvit_jax.report.page import (
  Section,
  escape,
  image,
  number,
  paragraph,
  table,
)


def reconstructions(run: Workdir) -> Section | None:
  """Strips original | reconstruction | error of held-out clips."""
  if run.held is None:
    return None
  clips = run.held.clips
  shown = min(pictures.MAX_FRAMES, len(clips[0].video))
  text = (
    f"Held-out clips at step {run.held.step}, at least one per file; "
    f"{shown} of {len(clips[0].video)} frames. Error is the mean absolute "
    f"difference over the channels, amplified {pictures.ERROR_FACTOR} times: "
    f"white is {255 // pictures.ERROR_FACTOR} of 255 grey levels or more."
  )
  return Section(
    "Reconstructions",
    paragraph(text, "soft") + "".join(_strip(clip) for clip in clips),
  )


def _strip(clip: Clip) -> str:
  rows = (
    ("original", clip.video),
    ("reconstruction", clip.recon),
    (
      f"error ×{pictures.ERROR_FACTOR}",
      pictures.error_map(clip.video, clip.recon),
    ),
  )
  return strip(clip.name, _quality(clip), rows)


def strip(
  name: str, quality: str, rows: Iterable[tuple[str, np.ndarray]]
) -> str:
  """Rows of frames of one clip, each with its label, under its name."""
  cells = "".join(
    f"<span>{escape(label)}</span>"
    + image(pictures.row(frames), "image/png", f"{name}: {label}")
    for label, frames in rows
  )
  return (
    f'<h3>{escape(name)} <span class="soft">{escape(quality)}</span></h3>'
    f'<div class="wide"><div class="strip">{cells}</div></div>'
  )


def _quality(clip: Clip) -> str:
  floor = "" if clip.floor != clip.floor else f", floor {clip.floor:.2f} dB"
  return f"{clip.psnr:.2f} dB{floor}"


def films(run: Workdir) -> Section | None:
  """Animations, original beside reconstruction."""
  if run.held is None or len(run.held.clips[0].video) < 2:
    return None
  figures = "".join(
    "<figure>"
    + image(
      pictures.animation(clip.video, clip.recon),
      "image/webp",
      f"{clip.name}: original, reconstruction",
    )
    + f"<figcaption>{escape(clip.name)}, {_quality(clip)}</figcaption></figure>"
    for clip in run.held.clips
  )
  text = (
    "Original on the left, reconstruction on the right, at "
    f"{pictures.FPS} frames per second."
  )
  return Section(
    "In motion", paragraph(text, "soft") + f'<div class="films">{figures}</div>'
  )


def tokens(run: Workdir) -> Section | None:
  """Histogram of ids over held-out clips."""
  if run.held is None or not run.held.counts:
    return None
  counts = run.held.counts
  rows = [
    (
      k,
      len(c),
      int(c.sum()),
      int((c > 0).sum()),
      number(100 * (c > 0).mean(), 1, "%"),
      number(histograms.entropy(c) / np.log(2), 2),
    )
    for k, c in enumerate(counts)
  ]
  plots = "".join(
    f"<figure>{curves.histogram(f'Factor {k}: {len(c):,} ids', c)}</figure>"
    for k, c in enumerate(counts[:4])
  )
  text = (
    f"Ids of {run.held.seen} held-out clips. A vocabulary larger than the "
    "number of tokens cannot be used up by them."
  )
  head = ["factor", "ids", "tokens seen", "ids used", "used", "entropy in bits"]
  return Section(
    "Tokens",
    paragraph(text, "soft")
    + f'<div class="plots">{plots}</div>'
    + table(head, rows),
  )
