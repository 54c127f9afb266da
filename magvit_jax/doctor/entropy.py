"""The entropy term of LFQ and its kin: at its end, without gradient, too weak.

Both entropies are logged in nats. What the entropy of a batch can reach is
bounded by the vocabulary, and by the tokens of a batch: that of the mean of n
distributions is at most ln n above the mean of theirs.
"""

import math

from magvit_jax.doctor import Finding, codes
from magvit_jax.doctor.loss import main_share, stuck
from magvit_jax.doctor.run import Run, ends

FULL, SURE = 0.97, 0.03  # of the most that is possible: nothing left to gain
LOW = 0.5  # of the most: the codes in use are few
# Share of numbers of a latent beyond quantizers/lfq.py's SURE; of latents of
# size 1 at the published temperature of 0.01 it is 0.98 before any training.
SATURATED = 0.99
SURE_ALL = 1e-3  # of the most, where the share is not logged


def check(run: Run) -> list[Finding]:
  """Saturated, without gradient or ineffective."""
  batch = run.values("entropy_batch")
  token = run.values("entropy_token")
  whole = vocabulary(run)
  if not len(batch) or not len(token) or not whole:
    return []
  batch, token = ends(batch)[1], ends(token)[1]
  most = min(whole, math.log(seen(run)) + token)
  what = (
    f"token entropy {token:.2f} of {whole:.2f} nats, batch entropy "
    f"{batch:.2f} of at most {most:.2f}"
  )
  weight = run.get("stage.weights.loss_entropy", 0.0)
  if not weight:
    return _unused(run, what, batch / most)
  if batch > FULL * most and token < SURE * whole and stuck(run):
    return [
      Finding(
        "entropy",
        "wrong",
        f"{what}: the term has all it wants while {run.main_term} is stuck "
        f"({main_share(run):.0%} of the weighted terms); codes are even and "
        "mean nothing",
        f"stage.weights.loss_entropy={weight / 5:.2g}",
      )
    ]
  if batch < LOW * most or codes.wasted(run):
    return [_ineffective(run, what, token / whole)]
  if _frozen(run, token / whole):
    return [Finding("entropy", "note", f"{what}; {_gradient(run)}")]
  return [Finding("entropy", "ok", what)]


def vocabulary(run: Run) -> float:
  """Entropy of evenly used codes, nats; 0 if it is not known."""
  if run.module is None or not run.tokens:
    return 0.0
  return sum(math.log(size) for size in run.module.quantizer.sizes)


def seen(run: Run) -> float:
  """Tokens of a (micro-)batch, whose distributions are averaged."""
  return run.tokens * run.config["batch"] / run.config["stage"]["accumulate"]


def _unused(run: Run, what: str, share: float) -> list[Finding]:
  if share > LOW and not codes.wasted(run):
    return [Finding("entropy", "ok", f"{what}; its term has weight 0")]
  return [
    Finding(
      "entropy",
      "warn",
      f"{what}: few codes are in use, and the term has weight 0",
      "stage.weights.loss_entropy=0.1",
    )
  ]


def _ineffective(run: Run, what: str, token: float) -> Finding:
  weight = run.get("stage.weights.loss_entropy")
  if _frozen(run, token):
    return Finding(
      "entropy",
      "warn",
      f"{what}: few codes are in use, and the term cannot help: "
      f"{_gradient(run)}",
      f"stage.quantizer.temperature={10 * codes.temperature(run):g}, or more "
      "stage.weights.loss_commitment, which draws latents to their codes",
    )
  return Finding(
    "entropy",
    "warn",
    f"{what}: few codes are in use at weight {weight:g}",
    f"stage.weights.loss_entropy={3 * weight:.2g}",
  )


def _frozen(run: Run, token: float) -> bool:
  """Whether nearly no number of a latent gets a gradient from the term."""
  shares = run.values("entropy_saturated")
  if len(shares):
    return ends(shares)[1] > SATURATED
  return token < SURE_ALL


def _gradient(run: Run) -> str:
  return (
    "nearly all latents are so large beside temperature "
    f"{codes.temperature(run):g} that it has no gradient there"
  )
