"""Where the time goes: throughput over the run, waiting for data, goodput."""

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run, ends
from magvit_jax.monitoring import goodput

# Another process, a hot chip or a cold cache come and go; a third does not.
DROP = 0.7
# Waiting a fifth of the time for data costs as much as a device in five.
WAIT = 0.2
# In less time than this any other process disturbs the figures.
SETTLED_SECONDS = 60.0
# Short runs spend much of their time in compiling; that is as it should be.
GOODPUT, LONG_SECONDS = 0.5, 1800.0

CURES = {
  "eval": "eval.every={twice}, or fewer data.eval_clips",
  "checkpoint": "checkpoint.every={saves}",
  "compile": "keep JAX_COMPILATION_CACHE_DIR between the starts",
  "data": "loader.threads={threads}",
  "other": "fewer starts: the rest is importing and restoring",
}


def check(run: Run) -> list[Finding]:
  """A drop of examples/s, a share of waiting, the share spent in steps."""
  steps, seconds = run.series("seconds_step")
  settled = len(steps) and ends(seconds)[1] * steps[-1] > SETTLED_SECONDS
  found = [*_drop(run), *_wait(run)] if settled else []
  rates = run.values("examples_per_second")
  if len(rates) and not found:
    what = f"{ends(rates)[1]:.3g} examples/s"
    found.append(Finding("speed", "ok", what))
  return [*found, *_goodput(run)]


def _drop(run: Run) -> list[Finding]:
  # The first row holds the warming up.
  rates = run.values("examples_per_second")[1:]
  if not len(rates):
    return []
  early, late = ends(rates)
  if late >= DROP * early:
    return []
  return [
    Finding(
      "speed",
      "warn",
      f"{late:.3g} examples/s lately, {early:.3g} at first",
      "look for another process on the machine, a slow disk or network, or a "
      "throttled chip; --profile_steps of train shows a few steps",
    )
  ]


def _wait(run: Run) -> list[Finding]:
  shares = run.values("data_share")
  if not len(shares) or ends(shares)[1] < WAIT:
    return []
  threads = run.config["loader"]["threads"]
  return [
    Finding(
      "speed",
      "warn",
      f"steps wait for data {ends(shares)[1]:.0%} of the time",
      f"loader.threads={2 * max(1, threads)} where there are cores for them, "
      "smaller or shorter source videos, or a local copy of them",
    )
  ]


def _goodput(run: Run) -> list[Finding]:
  rows = run.of("time")
  parts = goodput.add_up(rows)
  seconds = sum(parts.values())
  good = rows[-1].get("goodput") if rows else None
  if good is None or good > GOODPUT or seconds < LONG_SECONDS:
    return []
  most = max((k for k in parts if k != "step"), key=parts.get)
  cure = CURES.get(most, CURES["other"]).format(
    twice=2 * run.config["eval"]["every"],
    saves=2 * run.config["checkpoint"]["every"],
    threads=2 * max(1, run.config["loader"]["threads"]),
  )
  what = (
    f"{good:.0%} of {seconds / 3600:.1f} hours went into steps (goodput), "
    f"{parts[most] / seconds:.0%} into {most}"
  )
  return [Finding("speed", "warn", what, cure)]
