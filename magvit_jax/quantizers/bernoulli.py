"""Binary latents of Instella-T2I (Wang et al., arXiv 2506.21022).

A latent is a subset sum of learnt vectors: logits of n bits are a linear
function of z, and

  p = sigmoid(logits);  b ~ Bernoulli(sigmoid(logits / temperature)) with a key,
  b = [p > 1/2] without;  code = b E,  E [n d],

with the gradient of b taken as that of p. Bits are 0 and 1, not -1 and 1 as in
lfq, and the dictionary E is learnt.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.quantizers import Base, Quantized, check_ids, lfq, ste
from magvit_jax.types import Array, Key


def embed(bits: Array, table: Array) -> Array:
  """Subset sums: bits [… n] of 0 and 1, table [n d] -> [… d]."""
  return jnp.matmul(bits, table, precision=jax.lax.Precision.HIGHEST)


class Quantizer(Base):
  """Bernoulli quantizer.

  Its aux has 'loss_code' = mean p (1 - p), which makes bits sure (the released
  code computes it with weight 0). Nothing forces bits to be used.

  Attributes:
    width: numbers per latent.
    bits: n, bits of a code.
    factors: ids per latent, each of bits/factors bits, at most 30.
    temperature: of the sampling; the gradient does not see it.
  """

  width: int = 768
  bits: int = 64
  factors: int = 4
  temperature: float = 0.1

  def __post_init__(self):
    super().__post_init__()
    if self.width < 1:
      raise ValueError(f"bernoulli: width is {self.width}; it must be positive")
    lfq.check_bits("bernoulli", self.bits, self.factors)
    if self.temperature <= 0:
      raise ValueError(
        f"bernoulli: temperature is {self.temperature}; it must be positive"
      )

  def setup(self):
    self.logits = nn.Dense(self.bits)
    self.table = self.param(
      "table", nn.initializers.normal(0.02), (self.bits, self.width)
    )

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return self.width

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return (2 ** (self.bits // self.factors),) * self.factors

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key samples the bits."""
    logits = self.logits(z.astype(jnp.float32))
    p = jax.nn.sigmoid(logits)
    bits = logits > 0
    if key is not None:
      odds = jax.nn.sigmoid(logits / self.temperature)
      bits = jax.random.bernoulli(key, odds)
    codes = embed(ste(p, bits.astype(jnp.float32)), self.table)
    unsure = jnp.sum(p * jax.nn.sigmoid(-logits)) / max(p.size, 1)
    ids = lfq.bits_to_ids(bits, self.factors)
    return Quantized(codes, ids, {"loss_code": unsure}, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… factors] -> codes [… d]; see check_ids for wrong ones."""
    bits = lfq.ids_to_bits(check_ids(ids, self.sizes), self.bits)
    return embed(bits.astype(jnp.float32), self.table)


TINY = dict(width=3, bits=4, factors=2)
