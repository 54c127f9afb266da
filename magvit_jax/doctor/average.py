"""The moving average of the weights, which is evaluated and exported."""

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run

# An average with a tenth of random weights in it is visibly worse.
SHARE = 0.1


def check(run: Run) -> list[Finding]:
  """How much of the initial weights it still holds."""
  decay = run.get("stage.ema.decay")
  if decay is None or not run.step:
    return []
  if run.get("stage.ema.warmup"):
    what = f"decay {decay:g}, warmed up"
    return [Finding("average", "ok", what)]
  now, end = decay**run.step, decay**run.steps
  if end > SHARE:
    return [
      Finding(
        "average",
        "warn",
        f"decay {decay:g} without warm-up: after all {run.steps:,} steps the "
        f"average still holds {end:.0%} of the initial weights",
        f"stage.ema.warmup=True, or stage.ema.decay={1 - 10 / run.steps:.3g}"
        if run.steps > 20
        else "stage.ema.warmup=True",
      )
    ]
  if now > SHARE:
    what = (
      f"decay {decay:g} without warm-up: the average still holds {now:.0%} of "
      "the initial weights, and evaluations show that"
    )
    cure = f"wait for step {_steps(decay):,}, or stage.ema.warmup=True"
    return [Finding("average", "note", what, cure)]
  return [Finding("average", "ok", f"decay {decay:g}, {now:.1%} is initial")]


def _steps(decay: float) -> int:
  step = 1
  while decay**step > SHARE:
    step *= 2
  return step
