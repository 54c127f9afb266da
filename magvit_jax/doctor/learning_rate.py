"""The learning rate: can it move the weights, and does it suit the batch.

The published tokenizers of the family train with 1e-4 at batches of 128 to
256. That a rate must follow the batch (with its root under Adam, or in
proportion) is a rule of thumb: configs/tokenizer/clips.py trains with 2e-3 at a
batch of 8, 320 times what proportion asks for. A maintainer of SEED-Voken names
a rate not scaled with the batch as a cause of runs that do not converge (its
issue 53). So the rule alone is no finding: it counts with a sign of trouble.
"""

import math

import numpy as np

from magvit_jax import optim
from magvit_jax.doctor import Finding
from magvit_jax.doctor.loss import spikes, stuck, turned
from magvit_jax.doctor.run import MIN_ROWS, Run

LR, SMALL_BATCH, BATCH = 1e-4, 128, 256
ABOVE = 4.0  # times the rule: beyond what the choice of rule explains
# Adam moves a weight by about lr a step, and initial weights are near 0.02:
# over a run that adds up to less than 0.002, nothing can be learnt.
TRAVEL = 2e-3
TINY = 1e-6  # a rate below is a slip, not a short run
WARM = 0.5  # share of the run


def check(run: Run) -> list[Finding]:
  """Too small to move, warm-up too long, or too large with trouble."""
  lr = run.get("stage.optim.lr")
  if lr is None:
    return []
  found = [*_travel(run, lr), *_warmup(run, lr)]
  if not found:
    found = _batch(run, lr)
  return found


def _travel(run: Run, lr: float) -> list[Finding]:
  shape = run.get("stage.optim.schedule")
  warmup = run.get("stage.optim.warmup")
  rate = optim.make_schedule(run.steps, lr=lr, warmup=warmup, schedule=shape)
  travel = float(np.sum(rate(np.arange(run.steps))))
  if travel > TRAVEL:
    return []
  what = (
    f"lr {lr:.2g} over {run.steps:,} steps moves a weight by {travel:.1g} at "
    "most, less than weights are at the start"
  )
  if lr < TINY:
    cure = f"stage.optim.lr={LR:g}"
    return [Finding("learning_rate", "wrong", what, cure)]
  cure = f"steps={math.ceil(20 * TRAVEL / lr):,} or more"
  return [Finding("learning_rate", "note", f"a short run: {what}", cure)]


def _warmup(run: Run, lr: float) -> list[Finding]:
  warmup = run.get("stage.optim.warmup")
  if warmup <= WARM * run.steps or run.steps < MIN_ROWS:
    return []
  return [
    Finding(
      "learning_rate",
      "warn",
      f"the warm-up takes {warmup:,} of {run.steps:,} steps, so that lr "
      f"{lr:.2g} holds for few",
      f"stage.optim.warmup={run.steps // 20}, or more steps",
    )
  ]


def _batch(run: Run, lr: float) -> list[Finding]:
  batch = run.config["batch"]
  root = LR * math.sqrt(batch / SMALL_BATCH)
  what = (
    f"lr {lr:.2g} at batch {batch} (rule of thumb from {LR:g} at batch "
    f"{SMALL_BATCH}-{BATCH}: {LR * batch / BATCH:.2g} to {root:.2g})"
  )
  signs = _signs(run)
  if lr > ABOVE * root and signs:
    return [
      Finding(
        "learning_rate",
        "warn",
        f"{what}, and there are signs that it is too much: {', '.join(signs)}",
        f"stage.optim.lr={max(root, lr / 5):.2g}",
      )
    ]
  if lr < LR * batch / BATCH / ABOVE and stuck(run):
    return [
      Finding(
        "learning_rate",
        "warn",
        f"{what}, and the loss does not move",
        f"stage.optim.lr={min(root, lr * 5):.2g}",
      )
    ]
  return [Finding("learning_rate", "ok", what)]


def _signs(run: Run) -> list[str]:
  seen = {
    f"{len(run.bad)} steps that were not finite": len(run.bad),
    f"{len(spikes(run))} spikes of {run.main_term}": len(spikes(run)) > 1,
    f"{run.main_term} gets worse": turned(run),
    f"{run.main_term} does not move": stuck(run),
  }
  return [text for text, there in seen.items() if there]
