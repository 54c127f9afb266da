"""Stochastic cosine vector quantization of LARP (arXiv 2410.21264, sec. 3.2).

Latents and codes have length 1. In training a code is drawn from
softmax(cos(z, e) / T), in evaluation it is the nearest one; the gradient passes
straight through to the normalised latent.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.quantizers import Quantized, check_ids, codebook, ste
from magvit_jax.types import Array, Key


def draw(key: Key, z: Array, table: Array, temperature: float) -> Array:
  """Ids from softmax(z . e / temperature), unit z [… d] -> int32 […]."""
  return codebook.best(z / temperature, table, key=key)


class Quantizer(codebook.Codebook):
  """LARP's quantizer.

  Its aux has 'loss_commitment' (published weight 0.25, all of it times 0.1) and
  'loss_codebook' (1.0, likewise).

  Attributes:
    size: K, number of codes.
    width: numbers per latent and code.
    temperature: T of the draw; at 0.03 a random latent of 16 numbers takes its
      nearest of 8,192 codes in about 43 % of the draws.
  """

  size: int = 8192
  width: int = 16
  temperature: float = 0.03

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("stochastic_vq", 2, size=self.size)
    codebook.check_least("stochastic_vq", 1, width=self.width)
    if self.temperature <= 0:
      raise ValueError(
        f"stochastic_vq: temperature is {self.temperature}; it must be "
        "positive (for no randomness use the quantizer vq with cosine=True)"
      )

  def setup(self):
    uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
    self.embedding = self.param("embedding", uniform, (self.size, self.width))

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; with a key the codes are drawn."""
    z = codebook.unit(z.astype(jnp.float32))
    table = codebook.unit(self.embedding)
    if key is None:
      ids = codebook.nearest(z, table)
    else:
      ids = draw(key, z, table, self.temperature)
    q = codebook.take(table, ids)
    codes = ste(z, jax.lax.stop_gradient(q))
    return Quantized(codes, ids[..., None], codebook.both_losses(z, q), {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… 1] -> codes [… d]."""
    ids = check_ids(ids, self.sizes)[..., 0]
    return codebook.take(codebook.unit(self.embedding), ids)


TINY = dict(size=8, width=4)
