"""Two codebooks under one id: TokenFlow (arXiv 2412.03069, section 3.1).

The first numbers of a latent are semantic, the others for pixels. Each part is
normalised, and one id is chosen for both by the sum of the two distances,
|z_s - e_s|^2 + w |z_p - e_p|^2. With unit rows that is one search for the
largest z_s . e_s + w z_p . e_p.
"""

import jax
import jax.numpy as jnp

from magvit_jax.quantizers import Base, Quantized, check_ids, codebook, ste
from magvit_jax.quantizers.vq import small_uniform
from magvit_jax.types import Array, Key


def halves_to_unit(x: Array, semantic: int) -> Array:
  """[… d] with both parts, [:semantic] and [semantic:], of length 1."""
  first = codebook.unit(x[..., :semantic])
  return jnp.concatenate([first, codebook.unit(x[..., semantic:])], axis=-1)


def shared_id(z: Array, table: Array, semantic: int, weight: float) -> Array:
  """The id of the smallest sum of distances, unit parts [… d] -> int32 […]."""
  scale = jnp.where(jnp.arange(z.shape[-1]) < semantic, 1.0, weight)
  return codebook.best(z * scale, table)


class Quantizer(Base):
  """TokenFlow's quantizer of one scale; `multiscale` wraps it into the pyramid.

  Its codes are [semantic | pixel], for two decoders. Its aux has
  'loss_codebook' (published weight 1.0) and 'loss_commitment' (0.25).

  Attributes:
    size: K, number of ids, each with a semantic and a pixel code.
    semantic: numbers of the semantic part, the first ones.
    pixel: numbers of the pixel part.
    weight: w of the pixel distance; 0 searches by the semantic part alone.
  """

  size: int = 32768
  semantic: int = 32
  pixel: int = 8
  weight: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("dual", 2, size=self.size)
    codebook.check_least("dual", 1, semantic=self.semantic, pixel=self.pixel)
    if self.weight < 0:
      raise ValueError(
        f"dual: weight is {self.weight}; it must not be negative"
      )

  def setup(self):
    self.semantic_codes = self.param(
      "semantic_codes", small_uniform, (self.size, self.semantic)
    )
    self.pixel_codes = self.param(
      "pixel_codes", small_uniform, (self.size, self.pixel)
    )

  @property
  def dim(self) -> int:
    """Width of a latent, both parts."""
    return self.semantic + self.pixel

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return (self.size,)

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; needs no key."""
    del key
    z = halves_to_unit(z.astype(jnp.float32), self.semantic)
    table = self._table()
    ids = shared_id(z, table, self.semantic, self.weight)
    q = codebook.take(table, ids)
    codes = ste(z, jax.lax.stop_gradient(q))
    return Quantized(codes, ids[..., None], codebook.both_losses(z, q), {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… 1] -> codes [… d]."""
    ids = check_ids(ids, self.sizes)[..., 0]
    return codebook.take(self._table(), ids)

  def _table(self) -> Array:
    parts = [self.semantic_codes, self.pixel_codes]
    return jnp.concatenate([codebook.unit(part) for part in parts], axis=-1)


TINY = dict(size=8, semantic=3, pixel=2)
