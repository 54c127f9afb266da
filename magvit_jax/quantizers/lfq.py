"""Lookup-free quantization of MAGVIT-v2 (arXiv 2310.05737, section 3.1).

A latent of D numbers is the code sign(z) in {-1,1}^D, its id the integer with
bit i set where z_i > 0 (bit 0 is the first number; 0 counts as -1). There is
no table; an entropy term keeps tokens sure and the codes in use.
"""

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.losses import entropy
from magvit_jax.quantizers import Base, Quantized, check_ids, ste
from magvit_jax.types import Array, Key

# Log-odds of a sure bit: x p (1-p), the slope of its entropy, is 1/490 of the
# steepest there.
SURE = 10.0


def quantize(z: Array) -> Array:
  """sign(z) in {-1,1}, with -1 at 0."""
  return jnp.where(z > 0, 1.0, -1.0)


def bits_to_ids(bits: Array, factors: int = 1) -> Array:
  """bool [… D] -> int32 [… factors]; a factor's first bit is its lowest."""
  width = bits.shape[-1] // factors
  bits = bits.reshape(*bits.shape[:-1], factors, width).astype(jnp.int32)
  return jnp.sum(bits << np.arange(width), axis=-1, dtype=jnp.int32)


def ids_to_bits(ids: Array, bits: int) -> Array:
  """int32 [… factors] -> bool [… bits], the inverse of `bits_to_ids`."""
  width = bits // ids.shape[-1]
  on = (ids[..., None] >> np.arange(width)) & 1
  return on.reshape(*ids.shape[:-1], bits) == 1


def check_bits(name: str, bits: int, factors: int) -> None:
  """ValueError where `bits` cannot be cut into that many int32 ids."""
  if bits < 1 or factors < 1 or bits % factors:
    raise ValueError(
      f"{name}: {bits} bits do not divide into {factors} factors; "
      "choose a number of factors that divides the bits"
    )
  if bits // factors > 30:
    raise ValueError(
      f"{name}: {bits // factors} bits do not fit an int32 id; use "
      f"at least {-(-bits // 30)} factors"
    )


class Quantizer(Base):
  """LFQ.

  Its aux has 'loss_entropy' (sure tokens minus used codes, in nats) and
  'loss_commitment' (mean squared distance of z from its code), and logs both
  entropies and 'entropy_saturated', the share of numbers so large beside the
  temperature that the entropy term hardly moves them.

  Attributes:
    bits: D, numbers per latent; 2^D codes.
    factors: ids per latent, each of bits/factors bits (the token factorisation
      of MAGVIT-v2: 2 for 2 x 512 ids of 18 bits).
    temperature: tau of p(code | z); 0.01 is published. At a small one most
      latents are saturated and get no gradient from the entropy.
    groups: groups of bits in the batch entropy; 1 is exact (to 20 bits).
  """

  bits: int = 18
  factors: int = 1
  temperature: float = 0.01
  groups: int = 1

  def __post_init__(self):
    super().__post_init__()
    check_bits("lfq", self.bits, self.factors)
    if self.temperature <= 0:
      raise ValueError(
        f"lfq: temperature is {self.temperature}; it must be positive"
      )
    entropy.check_groups(self.bits, self.groups)

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
    z = z.astype(jnp.float32)
    codes = quantize(z)
    logits = (4.0 / self.temperature) * z.reshape(-1, self.bits)
    token = entropy.token_entropy(logits)
    batch = entropy.batch_entropy(logits, self.groups)
    gap = jnp.square(z - jax.lax.stop_gradient(codes))
    aux = {
      "loss_entropy": token - batch,
      "loss_commitment": jnp.sum(gap) / max(z.size, 1),
      "entropy_token": token,
      "entropy_batch": batch,
      "entropy_saturated": jnp.sum(jnp.abs(logits) > SURE) / max(z.size, 1),
    }
    return Quantized(ste(z, codes), bits_to_ids(z > 0, self.factors), aux, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… factors] -> codes [… D]; see check_ids for wrong ones."""
    ids = check_ids(ids, self.sizes)
    return jnp.where(ids_to_bits(ids, self.bits), 1.0, -1.0)


TINY = dict(bits=4, factors=2)
