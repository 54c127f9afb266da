"""Where the first value came from that was not finite.

A row of a step that was not applied has null for each such value. What is
computed first and is null is where it began, as null spreads forwards; a
gradient alone is the backward pass.
"""

from typing import NamedTuple

import numpy as np

from magvit_jax import messages
from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run, lr_times
from magvit_jax.losses import reconstruction
from magvit_jax.monitoring import incidents

# The norm before it, against the median: above, the weights ran away.
GROWN = 10.0

LOWER = "{lr} and stage.optim.clip={clip:.2g}"


class Place(NamedTuple):
  """A part of the step, in the order in which it is computed."""

  name: str
  cure: str


PLACES = (
  Place("the latents (clips, encoder)", LOWER),
  Place("a term of the quantizer", "stage.dtype=float32; then " + LOWER),
  Place("the decoder", LOWER),
  Place("the perceptual net", "convert stage.perceptual.weights again"),
  Place("the discriminator on reconstructions", LOWER),
  Place("the discriminator on clips", LOWER),
  Place("a weighted sum", "finite and smaller values in stage.weights"),
  Place("the backward pass", LOWER),
)


def check(run: Run) -> list[Finding]:
  """The first bad step: what was null, and what was seen before it."""
  if not run.bad:
    return []
  first, last = run.bad[0], run.bad[-1]
  stopped = (
    not run.done
    and last["bad"] >= incidents.MAX_BAD
    and last["step"] == run.step
  )
  names = [k for k, v in first.items() if v is None]
  place, origin = earliest(names)
  what = (
    f"{len(run.bad)} steps were not applied, the first at step "
    f"{first['step']:,}: it came from {place.name} ({', '.join(origin)})"
    f"{_before(run, first['step'])}"
  )
  clip = run.get("stage.optim.clip")
  cure = place.cure.format(
    lr=lr_times(run, 1 / 3), clip=clip / 2 if clip else 1.0
  )
  what += _clips(run, first["step"])
  if stopped:
    what += "; the run stopped there"
  return [Finding("non_finite", "wrong" if stopped else "warn", what, cure)]


def _clips(run: Run, step: int) -> str:
  rows = [row for row in run.told("non_finite") if row["step"] == step]
  files = sorted({name for row in rows for name in row["files"]})
  return f"; its clips are of {messages.some(files)}" if files else ""


def earliest(names: list[str]) -> tuple[Place, list[str]]:
  """The place that is computed first of those whose values are null.

  Args:
    names: keys of a row that are null, in any order.

  Returns:
    The place, and the names that belong to it.
  """
  by_place: dict[int, list[str]] = {}
  for name in sorted(names):
    by_place.setdefault(_place(name), []).append(name)
  if not by_place:
    return PLACES[-1], ["a gradient"]
  # Latents that are NaN make every term of the quantizer NaN and the output of
  # the decoder with it; a term that fails by itself leaves the decoder whole.
  if 1 in by_place and 2 in by_place:
    return PLACES[0], by_place[1] + by_place[2]
  first = min(by_place)
  return PLACES[first], by_place[first]


def _place(name: str) -> int:
  name = name.removeprefix("image_")  # images take the same way as clips
  if name.startswith("grad_norm"):
    return 7
  if name in ("loss", "loss_discriminator"):
    return 6
  if name.startswith("d_") or name == "logit_real":
    return 5
  if name.startswith("g_") or name == "logit_fake":
    return 4
  if "perceptual" in name or "lpips" in name:
    return 3
  return 2 if name in (*reconstruction.LOSSES, "loss_tokens", "nats") else 1


def _before(run: Run, step: int) -> str:
  """How the gradient stood in the row before."""
  steps, norms = run.series("grad_norm_gen")
  norms = norms[steps < step]
  if not len(norms):
    return "; no good row is before it"
  times = norms[-1] / max(float(np.median(norms)), 1e-30)
  text = f"; before it grad_norm_gen was {norms[-1]:.3g}"
  grown = f", {times:.0f} times its median" if times > GROWN else ""
  return text + (grown or ", as usual")
