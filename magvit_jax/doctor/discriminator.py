"""Balance of generator and discriminator."""

import numpy as np

from magvit_jax.doctor import Finding
from magvit_jax.doctor.loss import turned
from magvit_jax.doctor.run import MIN_ROWS, Run, ends
from magvit_jax.losses import adversarial
from magvit_jax.stages import _gan

# Fractions of the loss at chance, see `losses.adversarial.AdversarialLoss`.
WON = 0.15  # below it real and fake hardly overlap
BLIND = 0.02  # within so much of chance it separates nothing
FOOLED = 1.3  # above it the discriminator is worse than chance
GAP = 8.0  # between the mean logits; odds of 3000 to 1
# Steps that a discriminator may stay at chance, where it begins.
PATIENCE = 1000


def check(run: Run) -> list[Finding]:
  """Balance of each discriminator since its adversarial term began."""
  return [*_balance(run, ""), *_balance(run, "image_")]


def _balance(run: Run, prefix: str) -> list[Finding]:
  steps, values = run.series(f"{prefix}d_adversarial")
  begun = steps >= start(run, prefix)
  steps, values = steps[begun], values[begun]
  if len(values) < MIN_ROWS:
    return []
  name = run.get("stage.adversarial.loss", _gan.Adversarial.loss)
  if name not in adversarial.LOSSES:  # of a config by other code
    return []
  chance = adversarial.LOSSES[name].chance
  late, gap = ends(values)[1], _gap(run, prefix)
  what = f"{prefix}d_adversarial is {late:.3g} ({chance:.3g} is chance)"
  generator = run.values(f"{prefix}g_adversarial")
  if len(generator):
    early, now = ends(generator)
    what += f", {prefix}g_adversarial went from {early:.3g} to {now:.3g}"
  if gap is not None:
    what += f", mean logits are {gap:.2g} apart"
  if late < WON * chance or (gap is not None and gap > GAP):
    return [_winning(run, prefix, what)]
  half = values[len(values) // 2 :]
  if steps[-1] - steps[0] >= PATIENCE and _losing(half, chance):
    return [_lost(run, prefix, what)]
  return [Finding("discriminator", "ok", what)]


def start(run: Run, prefix: str) -> int:
  """The step at which both sides have a weight."""
  ramps = [
    run.get(f"stage.ramps.{prefix}{side}_adversarial", {}) for side in "gd"
  ]
  delays = [r["steps"] for r in ramps if r.get("name") == "delayed"]
  return max(delays, default=0)


def _gap(run: Run, prefix: str) -> float | None:
  real = run.values(f"{prefix}logit_real")
  fake = run.values(f"{prefix}logit_fake")
  if not len(real) or not len(fake):
    return None
  return ends(real)[1] - ends(fake)[1]


def _losing(values: np.ndarray, chance: float) -> bool:
  low, high = np.quantile(values, [0.1, 0.9])
  blind = low > (1 - BLIND) * chance and high < (1 + BLIND) * chance
  return blind or low > FOOLED * chance


def _winning(run: Run, prefix: str, what: str) -> Finding:
  worse = turned(run)
  if worse:
    what += f", and {run.main_term} gets worse"
  r1 = run.get(f"stage.weights.{prefix}d_r1", 0.0)
  weight = run.get(f"stage.weights.{prefix}g_adversarial", 0.0)
  cures = [
    f"stage.weights.{prefix}d_r1={5 * r1 if r1 else 40:g}",
    f"stage.weights.{prefix}g_adversarial={weight / 3:.2g}"
    if weight > 0.1
    else "a larger batch, or a discriminator of less width",
  ]
  return Finding(
    "discriminator",
    "wrong" if worse else "warn",
    f"it is winning: {what}",
    ", then ".join(cures),
  )


def _lost(run: Run, prefix: str, what: str) -> Finding:
  r1 = run.get(f"stage.weights.{prefix}d_r1", 0.0)
  net = f"stage.{prefix}discriminator.width"
  cures = [f"stage.weights.{prefix}d_r1={r1 / 10:g}"] if r1 else []
  cures += [f"{net}={2 * run.get(net)}"] if run.get(net) else []
  return Finding(
    "discriminator",
    "warn",
    f"it cannot separate real from fake: {what}",
    ", then ".join([*cures, "a higher learning rate"]),
  )
