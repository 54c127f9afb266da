"""Whether the loss moves, spikes or turns, and the floor that it must pass."""

import numpy as np

from magvit_jax import messages
from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run, ends, lr_times

MOVED = 0.9  # late over early: a run that learns gets far below
TURNED = 1.5  # late over the best fifth: adversarial terms cost some
# A batch can be three times as hard as its neighbours; a loss of 4 times the
# median of the rows before it is not that.
SPIKE, WINDOW = 4.0, 11
MANY, EVERY = 3, 2000  # fewer spikes, or rarer than in so many steps, pass
# Files that every spike has in its batch: so many of them would be chance.
BY_CHANCE = 0.1
WEAK = 0.1  # share of the weighted terms


def check(run: Run) -> list[Finding]:
  """Moving, turning, spikes, and PSNR against box means."""
  name, values = run.main_term, run.values(run.main_term)
  if not len(values):
    return []
  found = []
  if stuck(run):
    found.append(_stuck(run, values))
  elif turned(run):
    found.append(
      Finding(
        "loss",
        "warn",
        f"{name} is {ends(values)[1]:.3g} and was {best(values):.3g} before: "
        "it gets worse",
        f"{lr_times(run, 1 / 3)}, or less "
        "weight on what it trades with (stage.weights)",
      )
    )
  found += _spikes(run)
  found += _floor(run)
  if not found:
    early, late = ends(values)
    what = f"{name} went from {early:.3g} to {late:.3g}"
    found.append(Finding("loss", "ok", what))
  return found


def stuck(run: Run) -> bool:
  """Whether the main term has not moved since the first rows."""
  values = run.values(run.main_term)
  # A warm start is near its end at step 0, and so is the late part of a run
  # whose first rows are gone.
  if not len(values) or run.get("init_from"):
    return False
  return ends(values)[1] > MOVED * values[0]


def turned(run: Run) -> bool:
  """Whether the main term was clearly better before."""
  values = run.values(run.main_term)
  return bool(len(values)) and ends(values)[1] > TURNED * best(values)


def best(values: np.ndarray) -> float:
  """The lowest median of a fifth of the rows."""
  part = max(1, len(values) // 5)
  halves = range(0, len(values) - part + 1, max(1, part // 2))
  return float(min(np.median(values[k : k + part]) for k in halves))


def spikes(run: Run) -> list[int]:
  """Steps whose loss was far above what it was before.

  The loop looks at each step; of runs that kept no incidents there are rows.
  """
  if run.incidents:
    return sorted({row["step"] for row in run.told("spike")})
  steps, values = run.series(run.main_term)
  return [
    int(steps[k])
    for k in range(WINDOW, len(values))
    if values[k] > SPIKE * max(np.median(values[k - WINDOW : k]), 1e-9)
  ]


def _stuck(run: Run, values: np.ndarray) -> Finding:
  early, late = values[0], ends(values)[1]
  share = main_share(run)
  cure = "see the finding on the learning rate"
  if share < WEAK:
    weight = run.get(f"stage.weights.{run.main_term}", 1.0)
    cure = (
      f"stage.weights.{run.main_term}={weight * 5:g}: it is {share:.0%} of the "
      "weighted terms"
    )
  return Finding(
    "loss",
    "wrong" if run.step > run.steps / 2 else "warn",
    f"{run.main_term} does not move: {early:.3g} at step "
    f"{run.train[0]['step']:,}, {late:.3g} at step {run.step:,}",
    cure,
  )


def main_share(run: Run) -> float:
  """Share of the main term in the weighted terms of the generator, lately."""
  weights = run.get("stage.weights", {})
  size = {
    name: abs(weight * ends(run.values(name))[1])
    for name, weight in weights.items()
    if not name.removeprefix("image_").startswith("d_")
    and len(run.values(name))
  }
  whole = sum(size.values())
  return size.get(run.main_term, 0.0) / whole if whole else 1.0


def _spikes(run: Run) -> list[Finding]:
  steps = spikes(run)
  if not steps:
    return []
  shown = ", ".join(f"{s:,}" for s in steps[-MANY:])
  cure = lr_times(run, 1 / 2)
  if not run.get("stage.optim.clip"):
    norms = run.values("grad_norm_gen")
    clip = 2 * np.median(norms) if len(norms) else 1.0
    cure = f"stage.optim.clip={clip:.2g}, or {cure}"
  many = len(steps) >= MANY and len(steps) * EVERY > run.step
  what = (
    f"{run.main_term} has {len(steps)} spikes far above the steps before (step "
    f"{shown})"
  )
  if files := guilty(run):
    what += f", each in a batch with clips of {messages.some(files)}"
    cure = f"look at these files; then {cure}"
  return [Finding("loss", "warn" if many else "note", what, cure)]


def guilty(run: Run) -> list[str]:
  """Files that every spike has in its batch, which chance does not explain."""
  rows = run.told("spike")
  starts = run.told("start")
  if len(rows) < MANY or not starts:
    return []
  by_step: dict[int, set[str]] = {}
  for row in rows:  # each process knows those of its own rows
    by_step.setdefault(row["step"], set()).update(row["files"])
  files = max(starts[-1]["files"], 1)
  share = min(run.config["batch"] / files, 1.0)
  if files * share ** len(by_step) > BY_CHANCE:
    return []
  return sorted(set.intersection(*by_step.values()))


def _floor(run: Run) -> list[Finding]:
  psnr, floor = run.last("eval_psnr"), run.last("eval_psnr_box")
  if psnr is None or floor is None or psnr > floor:
    return []
  late = run.step > run.steps / 2
  return [
    Finding(
      "loss",
      "warn" if late else "note",
      f"held-out PSNR is {psnr:.2f} dB, and {floor:.2f} dB has whoever paints "
      "each box of a token in its mean colour",
      "train longer" if not late else "more steps, width or bits per token",
    )
  ]
