"""Results as HTML that carries its own films: nothing is left to fetch."""

from fractions import Fraction

import numpy as np

from magvit_jax.report.page import data_uri, escape, number
from magvit_jax.serve import edits, films, looks, uploads

CSS = """
.mv-films { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
.mv figure { margin: 0; max-width: 640px; }
.mv video, .mv img { width: 100%; display: block; border-radius: 6px;
  image-rendering: pixelated; }
.mv .mv-tokens { max-width: none; margin-top: 14px; overflow-x: auto; }
.mv .mv-tokens img { width: auto; max-width: 100%; border-radius: 0; }
.mv figcaption, .mv-soft { opacity: 0.75; font-size: 13.5px; margin-top: 4px; }
.mv-cards { display: grid; gap: 10px; margin: 14px 0 0;
  grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); }
.mv-cards div { border: 1px solid var(--border-color-primary);
  border-radius: 8px; padding: 8px 12px; }
.mv-cards b { display: block; font-size: 20px; font-weight: 600; }
.mv-cards span { opacity: 0.75; font-size: 13px; }
.mv-problem { border: 1px solid #b3412e; border-left-width: 5px;
  border-radius: 6px; padding: 10px 14px; overflow-wrap: anywhere; }
"""


def problem(error: Exception) -> str:
  """A message in place of a result."""
  return f'<div class="mv-problem" role="alert">{escape(error)}</div>'


def note(text: str) -> str:
  """A line that explains."""
  return f'<div class="mv-soft">{escape(text)}</div>'


def look(made: looks.Look, clip: uploads.Clip) -> str:
  """Original and reconstruction, figures, and the ids as colours."""
  t, h, w, _ = made.ids.shape
  shown = [("original", clip.video), ("reconstruction", made.recon)]
  colours = films.token_picture(made.ids)
  ids = " x ".join(f"{size:,}" for size in made.sizes)
  tiles = (
    f"{films.MOST_LATENTS} of {t}" if t > films.MOST_LATENTS else f"all {t}"
  )
  cards = [
    (number(made.psnr, 1, "dB"), "PSNR, mean over frames"),
    (number(made.bits, 4), "bits per pixel"),
    (f"{t} x {h} x {w}", "tokens (time x height x width)"),
    (f"{made.used:,}", f"different ones, of {ids}"),
  ]
  tokens = (
    '<figure class="mv-tokens">'
    f'<img src="{data_uri(colours, "image/png")}" alt="tokens">'
    f"<figcaption>The tokens of {tiles} latent frames: a square is a "
    "token, and equal tokens have equal colours.</figcaption></figure>"
  )
  figures = "".join(
    f"<div><b>{value}</b><span>{escape(text)}</span></div>"
    for value, text in cards
  )
  return (
    f'<div class="mv">{_films(shown, clip.fps)}'
    f'<div class="mv-cards">{figures}</div>'
    f"{tokens}{note(taken(clip))}</div>"
  )


def edit(made: edits.Edit) -> str:
  """What was made, beside what it was made from."""
  text = (
    f"Done by the task {made.task}, given {made.known:.0%} of the tokens. Grey "
    "is what was not given. What was given comes back as the tokenizer "
    "reconstructs it."
  )
  return f'<div class="mv">{_films(made.videos, made.fps)}{note(text)}</div>'


def taken(clip: uploads.Clip) -> str:
  """How much of an upload was read."""
  n, h, w, _ = clip.video.shape
  if clip.frames == 1:
    what = f"{clip.name}: an image of {w}x{h}"
  elif n == clip.frames:
    what = f"{clip.name}: all {n} frames of {w}x{h}"
  else:
    what = (
      f"{clip.name}: the first {n} of {clip.frames} frames of {w}x{h} "
      f"({float(n / clip.fps):.1f} s); the rest was left out"
    )
  sound = ", and so was the sound" if n < clip.frames else "; without its sound"
  return f"{what}{sound if clip.sound else ''}. The upload is deleted."


def _films(shown: list[tuple[str, np.ndarray]], fps: Fraction) -> str:
  cells = "".join(
    f"<figure>{_film(name, video, fps)}<figcaption>{escape(name)}"
    "</figcaption></figure>"
    for name, video in shown
  )
  return f'<div class="mv-films">{cells}</div>'


def _film(name: str, video: np.ndarray, fps: Fraction) -> str:
  film = films.film(video, fps)
  h, w = video.shape[1:3]
  # The place is kept while the film is being opened.
  style = f'style="aspect-ratio: {w} / {h}"'
  uri = data_uri(film.content, film.mime)
  if film.mime.startswith("image/"):
    return f'<img src="{uri}" alt="{escape(name)}" {style}>'
  return (
    f'<video src="{uri}" aria-label="{escape(name)}" {style} controls autoplay '
    "loop muted playsinline></video>"
  )
