"""Index backpropagation quantization (IBQ, arXiv 2412.02692, section 3).

The code is the row of the largest logit, logits = z C^T. Its one-hot row has
the gradient of the softmax, so that every code, chosen or not, gets one and the
book stays in use up to 2^18 codes.
"""

import jax
import jax.numpy as jnp

from magvit_jax.losses import entropy
from magvit_jax.quantizers import Quantized, check_ids, codebook
from magvit_jax.quantizers.vq import small_uniform
from magvit_jax.types import Array, Key


def index_backpropagation(z: Array, table: Array) -> tuple[Array, Array]:
  """Codes and ids of latents [n d] in table [K d].

  Returns:
    (codes [n d], ids int32 [n]): the value is table[ids], the gradient that of
    softmax(z table^T) @ table for z, and both for the table.
  """
  logits = codebook.dot(z, table.T)
  ids = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  return codebook.by_index(jax.nn.softmax(logits), ids, table), ids


class Quantizer(codebook.Codebook):
  """IBQ.

  Its aux, with the published weights: 'loss_index' (1.0), the error of the
  codes with the gradient above; 'loss_commitment' (1.0); 'loss_codebook'
  (0.25); 'loss_entropy' (0.05), sure tokens minus used codes, in nats.

  Attributes:
    size: K, number of codes.
    width: numbers per latent and code.
    temperature: tau of the entropy, on raw dot products.
  """

  size: int = 16384
  width: int = 256
  temperature: float = 0.01

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("ibq", 2, size=self.size)
    codebook.check_least("ibq", 1, width=self.width)
    if self.temperature <= 0:
      raise ValueError(
        f"ibq: temperature is {self.temperature}; it must be positive"
      )

  def setup(self):
    self.embedding = self.param(
      "embedding", small_uniform, (self.size, self.width)
    )

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; needs no key."""
    del key
    rows = z.astype(jnp.float32).reshape(-1, self.width)
    table = self.embedding
    codes, ids = codebook.by_chunks(
      lambda part: index_backpropagation(part, table), rows, self.size
    )
    chunk = max(1, codebook.MAX_SCORES // self.size)
    token, batch = entropy.table_entropies(rows, table, self.temperature, chunk)
    aux = {
      "loss_index": codebook.square_error(codes, rows),
      **codebook.both_losses(rows, codebook.take(table, ids)),
      "loss_entropy": token - batch,
      "entropy_token": token,
      "entropy_batch": batch,
    }
    ids = ids.reshape(self.ids_shape(z.shape))
    return Quantized(codes.reshape(z.shape), ids, aux, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… 1] -> codes [… d]."""
    ids = check_ids(ids, self.sizes)[..., 0]
    return codebook.take(self.embedding, ids)


TINY = dict(size=8, width=4)
