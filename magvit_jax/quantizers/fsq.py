"""Finite scalar quantization (Mentzer et al., arXiv 2309.15505).

Each of a few numbers is bounded by tanh and rounded to one of L_i levels; the
codebook is the grid of all levels. No parameters and, in the paper, no
auxiliary loss. Later forms of it, by argument:

  form 'symmetric'  levels spread evenly over [-1, 1] also where L_i is even,
                    2 / (L-1) * floor((L-1) (tanh z + 1) / 2 + 1/2) - 1
                    (Parker et al., arXiv 2411.19842, section 3.2)
  form 'clipped'    the same with a clip for tanh: the levels of a residual FSQ,
                    whose latents are in range already
  gain 0.8          iFSQ (Lin et al., arXiv 2601.17124): 2 sigmoid(1.6 z) - 1,
                    which is tanh(0.8 z), spreads normal latents nearly evenly
                    over [-1, 1]; the outermost levels are half as wide
  noise             while training, instead of rounding, uniform noise as wide
                    as a level, for that share of the examples (2411.19842)
  temperature       the terms of VidTok (Tang et al., arXiv 2412.13061)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import messages
from magvit_jax.losses import entropy
from magvit_jax.quantizers import Base, Quantized, check_ids, ste
from magvit_jax.types import Array, Key

EPS = 1e-3  # lets the outermost levels be reached


def bound(z: Array, levels: tuple[int, ...]) -> Array:
  """[… d] -> numbers that round to integers in [-(L//2), (L-1)//2]."""
  count = np.asarray(levels, np.float32)
  half = (count - 1) * (1 + EPS) / 2
  offset = np.where(count % 2 == 0, 0.5, 0.0)
  shift = np.arctanh(offset / half)
  return jnp.tanh(z + shift) * half - offset


def bound_symmetric(z: Array, levels: tuple[int, ...]) -> Array:
  """[… d] -> (L-1)/2 tanh z, whose ends are levels."""
  return jnp.tanh(z) * (np.asarray(levels, np.float32) - 1) / 2


def bound_clipped(z: Array, levels: tuple[int, ...]) -> Array:
  """[… d] -> (L-1)/2 z for z in [-1, 1], clipped to its ends outside."""
  return jnp.clip(z, -1.0, 1.0) * (np.asarray(levels, np.float32) - 1) / 2


BOUNDS = {
  "tanh": bound,
  "symmetric": bound_symmetric,
  "clipped": bound_clipped,
}


def digits_to_ids(digits: Array, levels: tuple[int, ...]) -> Array:
  """int32 [… d] in [0, L_i) -> int32 [… 1]; the first digit runs fastest."""
  basis = np.cumprod((1, *levels[:-1]), dtype=np.int32)
  return jnp.sum(digits * basis, axis=-1, keepdims=True, dtype=jnp.int32)


def ids_to_digits(ids: Array, levels: tuple[int, ...]) -> Array:
  """int32 [… 1] -> int32 [… d], the inverse of `digits_to_ids`."""
  basis = np.cumprod((1, *levels[:-1]), dtype=np.int32)
  return (ids // basis) % np.asarray(levels, np.int32)


class Quantizer(Base):
  """FSQ.

  With a temperature its aux has 'loss_entropy' (sure tokens minus used codes,
  nats) and 'loss_commitment' (mean squared distance of z from its code).

  Attributes:
    levels: number of levels L_i of each number of a latent, at least 3 in form
      'tanh' (its code of 2 levels would be lopsided), else at least 2.
    factors: ids per latent, each of len(levels)/factors numbers.
    form: 'tanh' (the paper), 'symmetric' or 'clipped'.
    gain: factor of z in the bound; 0.8 is iFSQ.
    noise: share of the examples (first axis) that get noise for rounding when
      a key is given; 0.5 is published. Their ids are those of rounding.
    temperature: 0 for no auxiliary terms; else tau of
      p(level | z) = softmax(-|bounded z - level|^2 / tau) per number, with 0.01
      in VidTok. (Its code drops the square of the level from the distance,
      which is not constant on a grid, and compares with the unbounded z.)
    groups: groups of numbers in the batch entropy; 1 is exact (to 2^20 codes).
  """

  levels: tuple[int, ...] = (8, 8, 8, 8, 8, 8)
  factors: int = 1
  form: str = "tanh"
  gain: float = 1.0
  noise: float = 0.0
  temperature: float = 0.0
  groups: int = 1

  def __post_init__(self):
    super().__post_init__()
    self._check_levels()
    if self.gain <= 0:
      raise ValueError(f"fsq: gain is {self.gain}; it must be positive")
    if not 0 <= self.noise <= 1:
      raise ValueError(
        f"fsq: noise is {self.noise}; it is a share of the examples, in [0, 1]"
      )
    if self.temperature < 0:
      raise ValueError(
        f"fsq: temperature is {self.temperature}; it must be positive, or 0 "
        "for no entropy term"
      )
    if self.temperature:
      entropy.check_grid(self.levels, self.groups)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return len(self.levels)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return tuple(math.prod(part) for part in self._parts())

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key is for noise."""
    z = z.astype(jnp.float32)
    bounded = BOUNDS[self.form](self.gain * z, self.levels)
    digits = self._digits(bounded)
    soft, codes = self._code(bounded), self._grid(digits)
    aux = self._terms(z, soft, codes) if self.temperature else {}
    codes = ste(soft, codes)
    if self.noise and key is not None:
      codes = self._noisy(soft, codes, key)
    parts = jnp.split(digits, self.factors, axis=-1)
    ids = [
      digits_to_ids(part, levels)
      for part, levels in zip(parts, self._parts(), strict=True)
    ]
    return Quantized(codes, jnp.concatenate(ids, axis=-1), aux, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… factors] -> codes [… d]; see check_ids for wrong ones."""
    ids = check_ids(ids, self.sizes)
    digits = [
      ids_to_digits(ids[..., i : i + 1], levels)
      for i, levels in enumerate(self._parts())
    ]
    return self._grid(jnp.concatenate(digits, axis=-1))

  def _digits(self, bounded: Array) -> Array:
    """int32 digits in [0, L)."""
    if self.form == "tanh":
      return jnp.round(bounded).astype(jnp.int32) + self._half()
    top = np.asarray(self.levels, np.int32) - 1
    return jnp.floor(bounded + top / 2 + 0.5).astype(jnp.int32)

  def _code(self, bounded: Array) -> Array:
    """Bounded numbers in units of levels -> in units of codes, [-1, 1]."""
    if self.form == "tanh":
      return bounded / self._half()
    return bounded * (2 / (np.asarray(self.levels, np.float32) - 1))

  def _grid(self, digits: Array) -> Array:
    """int32 digits -> codes."""
    if self.form == "tanh":
      return (digits - self._half()).astype(jnp.float32) / self._half()
    top = np.asarray(self.levels, np.int32) - 1
    return (2 * digits - top).astype(jnp.float32) / top

  def _terms(self, z: Array, soft: Array, codes: Array) -> dict[str, Array]:
    log_probs = []
    rows = soft.reshape(-1, self.dim)
    for i, level in enumerate(self.levels):
      grid = self._grid(jnp.arange(level)[:, None])[:, i]
      gap = jnp.square(rows[:, i, None] - grid)
      log_probs.append(jax.nn.log_softmax(-gap / self.temperature))
    token = entropy.grid_token_entropy(log_probs)
    batch = entropy.grid_batch_entropy(log_probs, self.groups)
    gap = jnp.sum(jnp.square(z - jax.lax.stop_gradient(codes)))
    return {
      "loss_entropy": token - batch,
      "loss_commitment": gap / max(z.size, 1),
      "entropy_token": token,
      "entropy_batch": batch,
    }

  def _noisy(self, soft: Array, codes: Array, key: Key) -> Array:
    which, how = jax.random.split(key)
    shape = codes.shape[:1] + (1,) * (codes.ndim - 1)
    chosen = jax.random.bernoulli(which, self.noise, shape)
    width = self._code(jnp.ones(self.dim))
    offset = width * (jax.random.uniform(how, codes.shape) - 0.5)
    return jnp.where(chosen, soft + offset, codes)

  def _half(self) -> np.ndarray:
    return np.asarray(self.levels, np.int32) // 2

  def _parts(self) -> list[tuple[int, ...]]:
    width = len(self.levels) // self.factors
    return [
      self.levels[i : i + width] for i in range(0, len(self.levels), width)
    ]

  def _check_levels(self) -> None:
    messages.check_choice("fsq: form", self.form, BOUNDS)
    least = 3 if self.form == "tanh" else 2
    if not self.levels or min(self.levels) < least:
      raise ValueError(
        f"fsq: levels are {self.levels}; each must be at least {least} (for 2 "
        "levels use the form 'symmetric' or the quantizer lfq)"
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


TINY = dict(levels=(4, 3), factors=2)
