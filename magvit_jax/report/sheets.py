"""Contact sheets: one row of frames per video, as a picture to keep."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magvit_jax.report import pictures

GAP = 4
LEAST_TILE = 96  # pixels; smaller frames are enlarged by a whole factor
MARGIN = 12
INK, PAPER = (28, 36, 48), (255, 255, 255)


class Row(NamedTuple):
  """One video of a sheet.

  Attributes:
    name: what stands to its left.
    video: uint8 [t h w 3].
    given: how many of the first frames were given; they are marked.
  """

  name: str
  video: np.ndarray
  given: int = 0


def contact_sheet(rows: Sequence[Row], most: int = 9) -> Image.Image:
  """Lays videos of one size under one another, at most `most` frames each.

  Given frames carry a bar of colour on top.
  """
  h, w = rows[0].video.shape[1:3]
  scale = max(1, -(-LEAST_TILE // max(h, w)))
  h, w = h * scale, w * scale
  font = ImageFont.load_default(13)
  text = max(round(font.getlength(row.name)) for row in rows)
  left = MARGIN + text + (MARGIN if text else 0)
  columns = min(most, max(len(row.video) for row in rows))
  size = (
    left + columns * (w + GAP) - GAP + MARGIN,
    2 * MARGIN + len(rows) * (h + 2 * GAP) - GAP,
  )
  sheet = Image.new("RGB", size, PAPER)
  draw = ImageDraw.Draw(sheet)
  for k, row in enumerate(rows):
    top = MARGIN + GAP + k * (h + 2 * GAP)
    place = (MARGIN, top + h // 2)
    draw.text(place, row.name, INK, font=font, anchor="lm")
    for column, frame in enumerate(chosen(len(row.video), most)):
      x = left + column * (w + GAP)
      tile = Image.fromarray(row.video[frame])
      sheet.paste(tile.resize((w, h), Image.Resampling.NEAREST), (x, top))
      if frame < row.given:
        draw.rectangle((x, top - GAP, x + w - 1, top - 1), fill=pictures.MARK)
  return sheet


def chosen(frames: int, most: int) -> list[int]:
  """At most `most` frame numbers spread evenly, both ends among them."""
  spread = np.linspace(0, frames - 1, min(most, frames))
  return [round(k) for k in spread]
