"""A generator against what needs no network: the frequencies of the ids."""

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run, lr_times

BARELY = 0.98  # of the unigram's: nothing of the context is used


def check(run: Run) -> list[Finding]:
  """Cross-entropy on held-out tokens, and whether it has turned."""
  _, values = run.series("eval_cross_entropy", "eval")
  unigram = run.last("eval_cross_entropy_unigram")
  if not len(values) or unigram is None:
    return []
  late, best = values[-1], values.min()
  what = f"{late:.3f} nats a token held out, {unigram:.3f} by frequency alone"
  if late > BARELY * unigram and run.step > run.steps / 2:
    cure = f"more steps, or {lr_times(run, 3)}"
    return [Finding("prediction", "warn", f"{what}: it uses no context", cure)]
  # The gain over the unigram is what was learnt; half of it lost is no noise.
  if unigram - late < 0.5 * (unigram - best):
    step = run.of("eval")[int(values.argmin())]["step"]
    return [
      Finding(
        "prediction",
        "warn",
        f"{what}; it was {best:.3f} at step {step:,}: it learns by heart",
        f"steps={step}, more clips, or a smaller transformer",
      )
    ]
  return [Finding("prediction", "ok", what)]
