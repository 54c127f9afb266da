"""Sections of what a generator made: predicted futures, samples by class."""

import numpy as np

from magvit_jax.report import pictures
from magvit_jax.report.gather import Workdir
from magvit_jax.report.made import Future
from magvit_jax.report.page import (
  Section,
  escape,
  image,
  number,
  paragraph,
  table,
)

MAX_STRIPS = 4


def futures(run: Workdir) -> Section | None:
  """Given frames | predicted | original of held-out clips, in motion."""
  if run.made is None or not run.made.futures:
    return None
  found = run.made.futures
  films = "".join(
    "<figure>"
    + image(
      pictures.animation(_marked(future), future.video),
      "image/webp",
      f"{future.name}: predicted, original",
    )
    + f"<figcaption>{_caption(future)}</figcaption></figure>"
    for future in found
  )
  text = (
    "Held-out clips whose first frames were given, one sample each, not "
    "chosen. Films: prediction on the left (given frames carry a bar of "
    f"colour), original on the right, at {pictures.FPS} frames per second."
  )
  rows = [
    (
      future.name,
      future.given,
      number(future.psnr, 2, "dB"),
      number(future.repeat, 2, "dB"),
      number(future.ceiling, 2, "dB"),
    )
    for future in found
  ]
  head = ["clip", "frames given", "predicted", "repeating the last given frame"]
  return Section(
    "Predicted futures",
    paragraph(text, "soft")
    + f'<div class="films">{films}</div>'
    + "".join(_strip(future) for future in found[:MAX_STRIPS])
    + "<h3>PSNR of the frames that were not given</h3>"
    + table([*head, "reconstruction (ceiling)"], rows),
  )


def _strip(future: Future) -> str:
  cells = "".join(
    f"<span>{label}</span>"
    + image(pictures.row(frames), "image/png", f"{future.name}: {label}")
    for label, frames in (
      ("predicted", _marked(future)),
      ("original", future.video),
    )
  )
  return (
    f"<h3>{escape(future.name)}, {future.given} of {len(future.video)} frames "
    f'given</h3><div class="wide"><div class="strip">{cells}</div></div>'
  )


def _marked(future: Future) -> np.ndarray:
  """The made clip; its given frames with a bar of colour on top."""
  video = future.made.copy()
  bar = max(1, video.shape[1] // 24)
  video[: future.given, :bar] = pictures.MARK
  return video


def _caption(future: Future) -> str:
  return (
    f"{escape(future.name)}, {future.given} given: {future.psnr:.2f} dB "
    f"(repeating {future.repeat:.2f})"
  )


def samples(run: Workdir) -> Section | None:
  """An animated contact sheet: one film per class."""
  if run.made is None or not run.made.samples:
    return None
  films = "".join(
    "<figure>"
    + image(pictures.animation(*videos), "image/webp", f"samples of {name}")
    + f"<figcaption>{escape(name)}</figcaption></figure>"
    for name, videos in run.made.samples.items()
  )
  count = len(next(iter(run.made.samples.values())))
  text = (
    f"{count} samples of each class, made from its label alone, not chosen; "
    f"decoded with {run.made.settings}."
  )
  return Section(
    "Samples by class",
    paragraph(text, "soft") + f'<div class="films">{films}</div>',
  )
