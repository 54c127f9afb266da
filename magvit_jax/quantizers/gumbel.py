"""Gumbel-softmax quantization (dVAE of DALL-E, arXiv 2102.12092, section 2.1).

A linear map gives each latent a logit per code. In training a code is drawn
from the softmax, in evaluation it is the largest logit; the gradient is that
of the softmax of the noisy logits at a temperature (straight-through
Gumbel-softmax, arXiv 1611.01144), so it reaches every code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.quantizers import Quantized, check_ids, codebook
from magvit_jax.types import Array, Key


def kl_to_uniform(logits: Array) -> Array:
  """Mean KL(softmax(logits) || uniform) in nats, [n K] -> scalar."""
  logp = jax.nn.log_softmax(logits)
  kl = jnp.sum(jnp.exp(logp) * (logp + jnp.log(logits.shape[-1])), axis=-1)
  return jnp.sum(kl) / max(kl.size, 1)


def gumbel_softmax(
  noisy: Array, table: Array, temperature: float
) -> tuple[Array, Array]:
  """Straight-through Gumbel-softmax.

  Args:
    noisy: [… K] logits with their noise.
    table: [K d].
    temperature: of the softmax that carries the gradient.

  Returns:
    (codes [… d], ids int32 […]).
  """
  ids = jnp.argmax(noisy, axis=-1).astype(jnp.int32)
  soft = jax.nn.softmax(noisy / temperature)
  return codebook.by_index(soft, ids, table), ids


class Quantizer(codebook.Codebook):
  """Gumbel-softmax.

  Its aux has 'loss_kl' (weight 6.6 in DALL-E, 5e-4 in VQGAN's code). The
  softmax over all codes is held for every latent: n K floats.

  Attributes:
    size: K, number of codes.
    width: numbers per latent and code.
    temperature: of the softmax that carries the gradient. DALL-E goes from 1
      to 1/16 in 150,000 steps; here it stays, as in VQGAN's code.
  """

  size: int = 8192
  width: int = 256
  temperature: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("gumbel", 2, size=self.size)
    codebook.check_least("gumbel", 1, width=self.width)
    if self.temperature <= 0:
      raise ValueError(
        f"gumbel: temperature is {self.temperature}; it must be positive"
      )

  def setup(self):
    self.to_logits = nn.Dense(self.size, precision=jax.lax.Precision.HIGHEST)
    normal = nn.initializers.normal(1.0)
    self.embedding = self.param("embedding", normal, (self.size, self.width))

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; with a key the codes are drawn."""
    logits = self.to_logits(z.astype(jnp.float32))
    kl = kl_to_uniform(logits.reshape(-1, self.size))
    if key is not None:
      logits += jax.random.gumbel(key, logits.shape)
    codes, ids = gumbel_softmax(logits, self.embedding, self.temperature)
    return Quantized(codes, ids[..., None], {"loss_kl": kl}, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… 1] -> codes [… d]."""
    ids = check_ids(ids, self.sizes)[..., 0]
    return codebook.take(self.embedding, ids)


TINY = dict(size=8, width=4)
