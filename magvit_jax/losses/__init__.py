"""Losses: functions of arrays to scalars, and how a stage adds them up.

A stage computes `terms` by name and calls `weighted_sum`; there is no other
place where a weight meets a loss.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from magvit_jax.messages import suggest
from magvit_jax.registry import arguments
from magvit_jax.types import Array


def linear(step: Array, *, start: float, stop: float, steps: int) -> Array:
  """A line from `start` at step 0 to `stop` at `steps`, then `stop`.

  `optax.linear_schedule` is the same to rounding, but under jit it may leave
  2e-8 of a term that is to end at 0, which Adam would follow.
  """
  share = jnp.clip(jnp.asarray(step, jnp.float32) / max(steps, 1), 0.0, 1.0)
  return start + (stop - start) * share


def delayed(step: Array, *, steps: int) -> Array:
  """0 before step `steps`, 1 from there on."""
  return jnp.asarray(step >= steps, jnp.float32)


RAMPS = {"linear": linear, "delayed": delayed}


def ramp(cfg: Mapping[str, Any], step: Array) -> Array:
  """The factor of a ramp such as dict(name='linear', start=3, stop=1, …)."""
  args = dict(cfg)
  name = args.pop("name", None)
  if name not in RAMPS:
    raise ValueError(f"ramp is {name!r}; it is one of {', '.join(RAMPS)}")
  taken = [arg for arg in arguments(RAMPS[name]) if arg != "step"]
  if set(args) != set(taken):
    wrong = next((arg for arg in args if arg not in taken), "")
    raise TypeError(
      f"the ramp {name!r} takes {', '.join(taken)}, and its config has "
      f"{', '.join(args) or 'none'}{suggest(wrong, taken)}; give just those"
    )
  return RAMPS[name](step, **args)


def weighted_sum(
  terms: Mapping[str, Array],
  weights: Mapping[str, float],
  ramps: Mapping[str, Mapping[str, Any]],
  step: Array,
) -> Array:
  """sum over terms of weight * ramp(step) * term, a float32 scalar.

  Raises:
    KeyError: a term has no weight. (`check_weights` rejects weights and ramps
      that match no term.)
  """
  total = jnp.zeros((), jnp.float32)
  for name, value in terms.items():
    if name not in weights:
      raise KeyError(
        f"the loss term {name!r} has no weight; add it to stage.weights (0.0 "
        f"leaves it out), which has {', '.join(sorted(weights)) or 'none'}"
      )
    factor = ramp(ramps[name], step) if name in ramps else 1.0
    total += weights[name] * factor * value
  return total


def check_weights(
  terms: Mapping[str, Array],
  weights: Mapping[str, float],
  ramps: Mapping[str, Any],
) -> None:
  """Rejects weights and ramps that match no term.

  Args:
    terms: all terms of a stage.
    weights: `stage.weights`.
    ramps: `stage.ramps`.

  Raises:
    KeyError: a weight or a ramp whose name is not among `terms`.
  """
  for kind, named in (("weights", weights), ("ramps", ramps)):
    for name in named:
      if name not in terms:
        raise KeyError(
          f"stage.{kind} has {name!r}, which is not a term of this stage"
          f"{suggest(name, terms)}; its terms are {', '.join(sorted(terms))}"
        )
