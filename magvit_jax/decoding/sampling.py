"""Filters of logits, frozen dataclasses logits -> logits, and guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from magvit_jax.types import Array, Key

Filter = Callable[[Array], Array]


@dataclass(frozen=True)
class Temperature:
  """Divides logits: below 1 is surer, above 1 more varied."""

  value: float

  def __post_init__(self):
    if not self.value > 0:
      raise ValueError(
        f"temperature is {self.value}; it must be positive (top_k=1 is the "
        "most probable id)"
      )

  def __call__(self, logits: Array) -> Array:
    return logits / self.value


@dataclass(frozen=True)
class TopK:
  """Keeps the k most probable ids (and those equal to the last of them)."""

  k: int

  def __post_init__(self):
    if self.k < 1:
      raise ValueError(f"top_k is {self.k}; it must be at least 1 (0 is off)")

  def __call__(self, logits: Array) -> Array:
    k = min(self.k, logits.shape[-1])
    last = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits < last, -jnp.inf, logits)


@dataclass(frozen=True)
class TopP:
  """Keeps the fewest most probable ids whose probabilities reach p."""

  p: float

  def __post_init__(self):
    if not 0 < self.p <= 1:
      raise ValueError(f"top_p is {self.p}; it must lie in (0, 1] (1 is off)")

  def __call__(self, logits: Array) -> Array:
    falling = -jnp.sort(-logits, axis=-1)
    probs = jax.nn.softmax(falling, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = jnp.where(before < self.p, falling, jnp.inf)
    return jnp.where(logits < kept.min(-1, keepdims=True), -jnp.inf, logits)


def filters(
  temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[Filter, ...]:
  """The filters that do something, in the order they are applied."""
  chosen = []
  if temperature != 1.0:
    chosen.append(Temperature(temperature))
  if top_k != 0:
    chosen.append(TopK(top_k))
  if top_p != 1.0:
    chosen.append(TopP(top_p))
  return tuple(chosen)


def draw(
  key: Key, logits: Sequence[Array], chain: Sequence[Filter] = ()
) -> Array:
  """Ids of filtered logits [… size] per factor -> int32 [… f]."""
  ids = []
  keys = jax.random.split(key, len(logits))
  for own, factor in zip(keys, logits, strict=True):
    for apply in chain:
      factor = apply(factor)
    ids.append(jax.random.categorical(own, factor, axis=-1))
  return jnp.stack(ids, axis=-1).astype(jnp.int32)


def log_prob(logits: Sequence[Array], ids: Array) -> Array:
  """log p of ids [… f], summed over factors -> float32 [...]."""
  return sum(
    jnp.take_along_axis(
      jax.nn.log_softmax(factor, axis=-1), ids[..., i : i + 1], axis=-1
    )[..., 0]
    for i, factor in enumerate(logits)
  )


def guide(
  logits: Sequence[Array], free: Sequence[Array], scale: float
) -> tuple[Array, ...]:
  """Classifier-free guidance, l + scale (l - l_free), per factor."""
  return tuple(
    own + scale * (own - without)
    for own, without in zip(logits, free, strict=True)
  )
