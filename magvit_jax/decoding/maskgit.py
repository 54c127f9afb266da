"""Parallel decoding of MaskGIT (arXiv 2202.04200) and MAGVIT (2212.05199).

Each step samples every masked position, keeps the most confident ones for good
and masks the others again, as many as a table known at trace time says. The
whole loop is one lax.scan: one program, one dispatch, no host in between.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from magvit_jax.decoding import sampling, schedules
from magvit_jax.types import Array, Key


@dataclass(frozen=True)
class MaskGIT:
  """How to decode; static under jit.

  Attributes:
    steps: forward passes.
    schedule: of the masked share; see schedules.SCHEDULES.
    choice_temperature: Gumbel noise on the confidence, falling to 0 over the
      steps; 0 always keeps the most probable.
    temperature: of the ids that are sampled.
    guidance: s of l + s (l - l without the label); 0 runs no second half.
    guidance_power: how late guidance rises to s; 0 has it at every step. See
      schedules.guidance_ramp.
    top_k: ids sampled from, per factor; 0 is all.
    top_p: probability mass sampled from, per factor; 1 is all.
  """

  steps: int = 12
  schedule: str = "cosine"
  choice_temperature: float = 4.5
  temperature: float = 1.0
  guidance: float = 0.0
  guidance_power: float = 0.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f"steps is {self.steps}; it must be at least 1")
    for name in ("choice_temperature", "guidance", "guidance_power"):
      value = getattr(self, name)
      if not value >= 0:
        raise ValueError(f"{name} is {value}; it must be 0 (off) or more")
    schedules.check(self.schedule)
    sampling.filters(self.temperature, self.top_k, self.top_p)


class Start(NamedTuple):
  """Where decoding starts; positions are flat.

  Attributes:
    given: int32 [b n f], what a position holds while it is not decided: MASK,
      or under COMMIT a token of the condition clip.
    fixed: int32 [b n f], read where `unknown` is false.
    unknown: bool [b n], positions to decode.
  """

  given: Array
  fixed: Array
  unknown: Array


class Trace(NamedTuple):
  """What each step did.

  Attributes:
    ids: int32 [steps b n f], all positions as sampled or fixed.
    unknown: bool [steps b n], those masked again after the step.
  """

  ids: Array
  unknown: Array


def decode(
  method: MaskGIT,
  predict: Callable[[Array, Array], Sequence[Array]],
  start: Start,
  key: Key,
) -> tuple[Array, Trace]:
  """Runs the loop.

  Confidence is the log-probability of a sampled id, summed over factors and
  before temperature, top-k and top-p: those would make every id look sure.

  Args:
    method: how to decode.
    predict: ids int32 [b n f] and the guidance of the step, float32 [] ->
      float32 logits [b n size] per factor.
    start: where to start.
    key: drawn from for ids and for the noise on the choice.

  Returns:
    ids int32 [b n f] without a MASK, and the Trace, which costs nothing if it
    is not used under jit.
  """
  chain = sampling.filters(method.temperature, method.top_k, method.top_p)
  table = jnp.asarray(
    schedules.count_table(method.schedule, start.unknown.shape[1], method.steps)
  )
  counts = table[jnp.sum(start.unknown, axis=1)]  # [b steps]

  def step(state, xs):
    ids, unknown = state
    number, own, count, guidance = xs
    pick, noise = jax.random.split(own)
    visible = jnp.where(unknown[..., None], start.given, ids)
    logits = predict(visible, guidance)
    sampled = sampling.draw(pick, logits, chain)
    heat = method.choice_temperature * (1 - (number + 1) / method.steps)
    sure = sampling.log_prob(logits, sampled)
    sure += heat * jax.random.gumbel(noise, sure.shape)
    ids = jnp.where(unknown[..., None], sampled, ids)
    unknown = lowest(jnp.where(unknown, sure, jnp.inf), count)
    return (ids, unknown), Trace(ids, unknown)

  xs = (
    jnp.arange(method.steps),
    jax.random.split(key, method.steps),
    counts.T,
    method.guidance
    * schedules.guidance_ramp(method.guidance_power, method.steps),
  )
  (ids, _), trace = jax.lax.scan(step, (start.fixed, start.unknown), xs)
  return ids, trace


def lowest(values: Array, count: Array) -> Array:
  """bool [b n]: the count[b] lowest of values [b n]; ties by position."""
  rank = jnp.argsort(jnp.argsort(values, axis=1), axis=1)
  return rank < count[:, None]
