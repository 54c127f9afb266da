"""Binary spherical quantization (Zhao et al., arXiv 2406.07548).

A latent v of D numbers is put on the unit sphere, u = v / |v|, and its code is
the nearest corner of a cube inside it, sign(u) / sqrt(D), also of length 1: the
error is bounded, so no commitment term is needed. The id has bit i set where
u_i > 0 (bit 0 is the first number; 0 counts as negative). The public code has
the first number as the *highest* bit instead.

The entropy term is that of lfq with log-odds 4 u_i / (tau sqrt(D)), times tau.
"""

import math

import jax
import jax.numpy as jnp

from magvit_jax.losses import entropy
from magvit_jax.quantizers import Base, Quantized, check_ids, lfq, ste
from magvit_jax.types import Array, Key


def sphere(v: Array) -> Array:
  """v / |v|; a zero vector stays zero, with a zero gradient."""
  square = jnp.sum(jnp.square(v), axis=-1, keepdims=True)
  some = square > 1e-24
  return jnp.where(some, v * jax.lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)


def quantize(u: Array) -> Array:
  """The corner sign(u) / sqrt(D), with the negative one at 0."""
  return lfq.quantize(u) / math.sqrt(u.shape[-1])


class Quantizer(Base):
  """BSQ.

  Its aux has 'loss_entropy' (temperature * (sure tokens - used codes), nats)
  and 'loss_commitment' (squared distance of u from its code, summed over the
  numbers of a latent; the released configs give it weight 0).

  Attributes:
    bits: D, numbers per latent; 2^D codes, any number of bits.
    factors: ids per latent, each of bits/factors bits, at most 30.
    temperature: tau of p(code | u); 1 is released, at which p is smooth.
    groups: groups of bits in the batch entropy; 0 takes groups of 9 bits as
      the paper does where 9 divides the bits, and single bits elsewhere.
  """

  bits: int = 18
  factors: int = 1
  temperature: float = 1.0
  groups: int = 0

  def __post_init__(self):
    super().__post_init__()
    lfq.check_bits("bsq", self.bits, self.factors)
    if self.temperature <= 0:
      raise ValueError(
        f"bsq: temperature is {self.temperature}; it must be positive"
      )
    entropy.check_groups(self.bits, self._groups())

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return self.bits

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return (2 ** (self.bits // self.factors),) * self.factors

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… D] -> Quantized; needs no key."""
    del key
    u = sphere(z.astype(jnp.float32))
    codes = quantize(u)
    scale = 4.0 / (self.temperature * math.sqrt(self.bits))
    logits = scale * u.reshape(-1, self.bits)
    token = entropy.token_entropy(logits)
    batch = entropy.batch_entropy(logits, self._groups())
    gap = jnp.sum(jnp.square(u - jax.lax.stop_gradient(codes)))
    aux = {
      "loss_entropy": self.temperature * (token - batch),
      "loss_commitment": gap / max(u.size // self.bits, 1),
      "entropy_token": token,
      "entropy_batch": batch,
    }
    ids = lfq.bits_to_ids(u > 0, self.factors)
    return Quantized(ste(u, codes), ids, aux, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… factors] -> codes [… D]; see check_ids for wrong ones."""
    ids = check_ids(ids, self.sizes)
    signs = jnp.where(lfq.ids_to_bits(ids, self.bits), 1.0, -1.0)
    return signs / math.sqrt(self.bits)

  def _groups(self) -> int:
    if self.groups:
      return self.groups
    return self.bits // 9 if self.bits % 9 == 0 else self.bits


TINY = dict(bits=4, factors=2)
