"""Dead codes: how much of the vocabulary is used, and by the saved table."""

import numpy as np

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run

# Tokens of real clips repeat, so that even a healthy tokenizer uses half of
# what evenly drawn tokens would; a fifth is a vocabulary that went to waste.
USED = 0.2
# That few codes in effect are a collapse, whatever the vocabulary.
COLLAPSED, LARGE = 3.0, 16
# Of the even share of a code's running count: one in a hundred is dead.
DEAD = 0.01
MANY_DEAD = 0.5


def check(run: Run) -> list[Finding]:
  """Usage and perplexity of the last evaluation, dead rows of the table."""
  if not run.is_tokenizer:
    return []
  found = [*_usage(run), *_table(run)]
  usage = run.last("eval_usage")
  if usage is not None and not found:
    what = f"{usage:.1%} of the ids are used"
    perplexity = run.last("eval_perplexity")
    if perplexity is not None:
      what += f", perplexity {perplexity:.4g}"
    found.append(Finding("codes", "ok", what))
  return found


def cure(run: Run) -> str:
  """What makes this quantizer use more codes."""
  weight = run.get("stage.weights.loss_entropy")
  if weight is not None:
    new = 3 * weight if weight else 0.1
    text = f"stage.weights.loss_entropy={new:.2g}"
    if 0 < temperature(run) < 1:
      warmer = min(1.0, 10 * temperature(run))
      text += f" and stage.quantizer.temperature={warmer:g}"
    return text
  vq = run.get("stage.quantizer.name") == "vq"
  if vq and run.get("stage.quantizer.learn") != "ema":
    return (
      "stage.quantizer.learn=ema and stage.quantizer.restart=0.1, which moves "
      "dead codes"
    )
  if vq and not run.get("stage.quantizer.restart"):
    return "stage.quantizer.restart=0.1, which moves dead codes"
  return "a smaller vocabulary (stage.quantizer), or more and other clips"


def temperature(run: Run) -> float:
  """That of the quantizer's entropy term, 0 where it has none."""
  quantizer = run.module.quantizer if run.module else None
  return getattr(quantizer, "temperature", 0.0)


def possible(run: Run) -> float:
  """Usage of evenly drawn tokens, as many as evaluation sees; 1 if unknown."""
  sizes = run.module.quantizer.sizes if run.module else ()
  seen = run.tokens * (run.get("data.eval_clips") or 0)
  if not sizes or not seen:
    return 1.0
  return float(np.mean([-np.expm1(seen * np.log1p(-1 / s)) for s in sizes]))


def wasted(run: Run) -> bool:
  """Whether the last evaluation used far fewer codes than it could."""
  usage = run.last("eval_usage")
  return usage is not None and usage < USED * possible(run)


def _usage(run: Run) -> list[Finding]:
  usage, perplexity = run.last("eval_usage"), run.last("eval_perplexity")
  sizes = run.module.quantizer.sizes if run.module else ()
  if usage is None:
    return []
  if perplexity is not None and sizes and min(sizes) >= LARGE:
    if perplexity < COLLAPSED:
      what = (
        f"the codes have collapsed: perplexity {perplexity:.3g} of "
        f"{min(sizes):,}, {usage:.1%} of the ids used"
      )
      return [Finding("codes", "wrong", what, cure(run))]
  if not wasted(run):
    return []
  what = f"{usage:.1%} of the ids are used on held-out clips"
  if possible(run) < 1:
    what += f"; evenly drawn tokens would use {possible(run):.1%}"
  return [Finding("codes", "warn", what, cure(run))]


def _table(run: Run) -> list[Finding]:
  """Dead rows by running counts, or rows of VQ that never left the start."""
  found = []
  for name, table in run.weights.items():
    leaf = name.rpartition("/")[2]
    if not name.startswith("params/gen/quantizer"):
      continue
    if leaf == "buffer_count":
      dead = table < DEAD * table.mean()
      how = f"have less than {DEAD:.0%} of the even share of tokens"
    elif leaf == "embedding" and run.get("stage.quantizer.name") == "vq":
      # Its start is uniform in [-1/K, 1/K], and what is never chosen has no
      # gradient.
      dead = np.abs(table).max(axis=-1) <= 1 / len(table)
      how = "have not left their start"
    else:
      continue
    if dead.mean() > MANY_DEAD:
      what = f"{dead.sum():,} of {len(dead):,} codes in the checkpoint {how}"
      found.append(Finding("codes", "warn", what, cure(run)))
  return found
