"""The norms of the gradients of both sides, over the run."""

import numpy as np

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run, ends, lr_times

# Norms fall or rise severalfold in any run as losses trade places.
GROWN, FADED = 20.0, 1e-3
# A loss that has fallen this far has small gradients by right.
LEARNT = 0.05
CLIPPED = 0.95  # share of rows
APART = 1e3  # between the sides; Adam forgives a factor, not a dead side
SIDES = ("gen", "disc", "disc_image")


def check(run: Run) -> list[Finding]:
  """Growing, fading, always clipped, or far apart."""
  found = []
  for side in SIDES:
    norms = run.values(f"grad_norm_{side}")
    if len(norms):
      found += _scale(run, side, norms)
  found = [*(found or _apart(run)), *_clipped(run)]
  norms = run.values("grad_norm_gen")
  if len(norms) and not found:
    early, late = ends(norms)
    what = f"grad_norm_gen was {early:.3g} at first and is {late:.3g}"
    found.append(Finding("gradients", "ok", what))
  return found


def _scale(run: Run, side: str, norms: np.ndarray) -> list[Finding]:
  early, late = ends(norms)
  what = f"grad_norm_{side} went from {early:.3g} to {late:.3g}"
  # A fresh discriminator begins with next to no gradient.
  if late > GROWN * max(early, float(np.median(norms))):
    cure = lr_times(run, 1 / 3)
    if not run.get("stage.optim.clip"):
      cure += f", stage.optim.clip={2 * early:.2g}"
    return [Finding("gradients", "warn", f"{what}: it explodes", cure)]
  if late < FADED * early and not _learnt(run):
    return [
      Finding(
        "gradients",
        "warn",
        f"{what} and the loss did not fall with it: it vanishes",
        "look for saturation (entropy, a discriminator that has won), and try "
        + lr_times(run, 1 / 3),
      )
    ]
  return []


def _learnt(run: Run) -> bool:
  values = run.values(run.main_term)
  if not len(values):
    return False
  early, late = ends(values)
  return late < LEARNT * early


def _clipped(run: Run) -> list[Finding]:
  clip = run.get("stage.optim.clip")
  norms = {
    f"grad_norm_{side}": run.values(f"grad_norm_{side}") for side in SIDES
  }
  always = {
    name: x
    for name, x in norms.items()
    if clip and len(x) and np.mean(x > clip) >= CLIPPED
  }
  if not always:
    return []
  medians = ", ".join(f"{k} {np.median(x):.3g}" for k, x in always.items())
  high = max(np.quantile(x, 0.9) for x in always.values())
  return [
    Finding(
      "gradients",
      "note",
      f"the clip of {clip:g} acts in nearly all rows (median {medians}), so "
      "that it does not damp spikes alone",
      f"stage.optim.clip={high:.2g}",
    )
  ]


def _apart(run: Run) -> list[Finding]:
  gen, disc = (run.values(f"grad_norm_{side}") for side in SIDES[:2])
  if not len(gen) or not len(disc):
    return []
  gen, disc = ends(gen)[1], ends(disc)[1]
  if max(gen, disc) < APART * min(gen, disc):
    return []
  less = "generator" if gen < disc else "discriminator"
  return [
    Finding(
      "gradients",
      "note",
      f"grad_norm_gen is {gen:.3g} and grad_norm_disc {disc:.3g}: the {less} "
      "hardly gets a signal",
      "see the findings on the discriminator",
    )
  ]
