"""Finite scalar quantization (Mentzer et al., arXiv 2309.15505).

Each of a few numbers is bounded by tanh and rounded to one of L_i levels; the
codebook is the grid of all levels. No parameters, no auxiliary loss.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from magvit_jax.quantizers import Quantized, ste
from magvit_jax.types import Array, Key, PyTree

EPS = 1e-3  # lets the outermost levels be reached


def bound(z: Array, levels: tuple[int, ...]) -> Array:
  """[… d] -> numbers that round to integers in [-(L//2), (L-1)//2]."""
  count = np.asarray(levels, np.float32)
  half = (count - 1) * (1 + EPS) / 2
  offset = np.where(count % 2 == 0, 0.5, 0.0)
  shift = np.arctanh(offset / half)
  return jnp.tanh(z + shift) * half - offset


def digits_to_ids(digits: Array, levels: tuple[int, ...]) -> Array:
  """int32 [… d] in [0, L_i) -> int32 [… 1]; the first digit runs fastest."""
  basis = np.cumprod((1, *levels[:-1]), dtype=np.int32)
  return jnp.sum(digits * basis, axis=-1, keepdims=True, dtype=jnp.int32)


def ids_to_digits(ids: Array, levels: tuple[int, ...]) -> Array:
  """int32 [… 1] -> int32 [… d], the inverse of `digits_to_ids`."""
  basis = np.cumprod((1, *levels[:-1]), dtype=np.int32)
  return (ids // basis) % np.asarray(levels, np.int32)


class Quantizer(nn.Module):
  """FSQ.

  Attributes:
    levels: number of levels L_i of each number of a latent, at least 3 (the
      formula gives a lopsided code at 2: use lfq there).
    factors: ids per latent, each of len(levels)/factors numbers.
  """

  levels: tuple[int, ...] = (8, 8, 8, 8, 8, 8)
  factors: int = 1

  def __post_init__(self):
    super().__post_init__()
    if not self.levels or min(self.levels) < 3:
      raise ValueError(
        f"fsq: levels are {self.levels}; each must be at least 3 (for 2 levels "
        "use the quantizer lfq)"
      )
    if self.factors < 1 or len(self.levels) % self.factors:
      raise ValueError(
        f"fsq: {len(self.levels)} levels do not divide into {self.factors} "
        "factors; choose a number of factors that divides them"
      )
    if max(self.sizes) >= 2**31:
      raise ValueError(
        f"fsq: {max(self.sizes)} codes do not fit an int32 id; use more factors"
      )

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return len(self.levels)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return tuple(math.prod(part) for part in self._parts())

  def ids_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """[… d] -> [… factors]."""
    return (*latent_shape[:-1], self.factors)

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; needs no key and has no loss."""
    del key
    bounded = bound(z.astype(jnp.float32), self.levels)
    rounded = jnp.round(bounded)
    half = self._half()
    codes = ste(bounded / half, rounded / half)
    digits = rounded.astype(jnp.int32) + half
    parts = jnp.split(digits, self.factors, axis=-1)
    ids = [
      digits_to_ids(part, levels)
      for part, levels in zip(parts, self._parts(), strict=True)
    ]
    return Quantized(codes, jnp.concatenate(ids, axis=-1), {}, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… factors] -> codes [… d]."""
    digits = [
      ids_to_digits(ids[..., i : i + 1], levels)
      for i, levels in enumerate(self._parts())
    ]
    half = self._half()
    return (jnp.concatenate(digits, axis=-1) - half).astype(jnp.float32) / half

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Nothing to refresh."""
    del stats, key
    return params

  def _half(self) -> np.ndarray:
    return np.asarray(self.levels, np.int32) // 2

  def _parts(self) -> list[tuple[int, ...]]:
    width = len(self.levels) // self.factors
    return [
      self.levels[i : i + width] for i in range(0, len(self.levels), width)
    ]


TINY = dict(levels=(4, 3), factors=2)
