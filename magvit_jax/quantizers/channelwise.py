"""Quantization of each number of a trained continuous latent by itself
(TokenBridge, Wang et al., arXiv 2503.16430).

No params and nothing to learn: the 2^bits levels of a number are the means of a
standard normal inside bins of equal probability, clipped at +-3,

  b = clip(ppf(i / B), -r, r);  g_i = (phi(b_i) - phi(b_{i+1})) /
                                      (Phi(b_{i+1}) - Phi(b_i)),

and a number x is scaled from [low, high] to [-r, r] and takes the nearest level
(the published code; the paper speaks of the bin it lies in). Numbers should
have standard deviation 1: the default range of +-5 keeps the tails.
"""

import statistics

import jax.numpy as jnp
import numpy as np

from magvit_jax.quantizers import Base, Quantized, check_ids, ste
from magvit_jax.types import Array, Key

NORMAL = statistics.NormalDist()


def gaussian_levels(bits: int, radius: float = 3.0) -> np.ndarray:
  """float32 [2^bits] levels of a standard normal, in rising order."""
  count = 2**bits
  inner = [NORMAL.inv_cdf(i / count) for i in range(1, count)]
  bounds = np.clip([-np.inf, *inner, np.inf], -radius, radius)
  density = np.array([NORMAL.pdf(b) for b in bounds])
  below = np.array([NORMAL.cdf(b) for b in bounds])
  return (-np.diff(density) / np.diff(below)).astype(np.float32)


def nearest(u: Array, levels: np.ndarray) -> Array:
  """int32 index of the level nearest to each number."""
  middles = (levels[1:] + levels[:-1]) / 2
  return jnp.searchsorted(middles, u).astype(jnp.int32)


class Quantizer(Base):
  """Channelwise quantizer: one id per number of a latent.

  Attributes:
    channels: numbers per latent.
    bits: of each id.
    low, high: range of the numbers, one or one per number; what lies outside
      is clipped to it.
    radius: r, where the normal is cut.
  """

  channels: int = 16
  bits: int = 6
  low: float | tuple[float, ...] = -5.0
  high: float | tuple[float, ...] = 5.0
  radius: float = 3.0

  def __post_init__(self):
    super().__post_init__()
    if self.channels < 1:
      raise ValueError(
        f"channelwise: channels is {self.channels}; it must be positive"
      )
    if not 1 <= self.bits <= 12:
      raise ValueError(
        f"channelwise: bits is {self.bits}; it must lie in 1..12"
      )
    if self.radius <= 0:
      raise ValueError(
        f"channelwise: radius is {self.radius}; it must be positive"
      )
    if NORMAL.cdf(-self.radius) >= 2.0**-self.bits:
      raise ValueError(
        f"channelwise: radius {self.radius} cuts off whole bins of {self.bits} "
        "bits; use a larger one or fewer bits"
      )
    for name in ("low", "high"):
      if np.size(getattr(self, name)) not in (1, self.channels):
        raise ValueError(
          f"channelwise: {name} has {np.size(getattr(self, name))} numbers; "
          f"give one, or one for each of the {self.channels} channels"
        )
    if not np.all(np.asarray(self.low) < np.asarray(self.high)):
      raise ValueError(
        f"channelwise: low is {self.low} and high {self.high}; low must be "
        "below high"
      )

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return self.channels

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor: one factor per number."""
    return (2**self.bits,) * self.channels

  def ids_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """[… d] -> [… d]."""
    return tuple(latent_shape)

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; needs no key and has no loss."""
    del key
    z = z.astype(jnp.float32)
    low, scale = self._range()
    ids = nearest((z - low) / scale - self.radius, self._levels())
    return Quantized(ste(z, self._values(ids)), ids, {}, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… d] -> codes [… d]; see check_ids for wrong ones."""
    return self._values(check_ids(ids, self.sizes))

  def _levels(self) -> np.ndarray:
    return gaussian_levels(self.bits, self.radius)

  def _range(self) -> tuple[np.ndarray, np.ndarray]:
    """(low, units of the latent per unit of the normal)."""
    low, high = np.float32(self.low), np.float32(self.high)
    return low, (high - low) / np.float32(2 * self.radius)

  def _values(self, ids: Array) -> Array:
    """Codes by gather from a table made on the host: no rounding under jit."""
    low, scale = self._range()
    levels = self._levels()[:, None]
    table = np.broadcast_to(
      (levels + np.float32(self.radius)) * scale + low,
      (len(levels), self.channels),
    )
    return jnp.asarray(table)[ids, np.arange(self.channels)]


TINY = dict(channels=3, bits=2)
