"""SimVQ: a frozen random codebook behind one learnt linear map.

Zhu et al., arXiv 2411.02038. The codes are C W with C drawn from N(0, 1/d) and
never trained; one step on W moves all codes, also those that no latent chose,
so none of them dies.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.quantizers import Quantized, check_ids, codebook, ste
from magvit_jax.types import Array, Key


class Quantizer(codebook.Codebook):
  """SimVQ.

  Its aux has 'loss_codebook' (published weight 1.0) and 'loss_commitment'
  (0.25).

  Attributes:
    size: K, number of codes.
    width: numbers per latent and code.
    frozen_dim: numbers per row of the frozen codebook; 0 is `width`.
    gradient: 'straight' or 'rotation', how the gradient passes the search.
  """

  size: int = 8192
  width: int = 128
  frozen_dim: int = 0
  gradient: str = "straight"

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("simvq", 2, size=self.size)
    codebook.check_least("simvq", 1, width=self.width)
    codebook.check_least("simvq", 0, frozen_dim=self.frozen_dim)
    messages.check_choice("simvq: gradient", self.gradient, codebook.GRADIENTS)

  def setup(self):
    inner = self.frozen_dim or self.width
    normal = nn.initializers.normal(inner**-0.5)
    self.frozen = self.param("buffer_codes", normal, (self.size, inner))
    self.kernel = self.param(
      "kernel", nn.initializers.lecun_normal(), (inner, self.width)
    )

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; needs no key."""
    del key
    z = z.astype(jnp.float32)
    table = self._table()
    ids = codebook.nearest(z, table)
    q = codebook.take(table, ids)
    stopped = jax.lax.stop_gradient(q)
    passed = codebook.GRADIENTS[self.gradient](z, stopped)
    aux = codebook.both_losses(z, q)
    return Quantized(ste(passed, stopped), ids[..., None], aux, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… 1] -> codes [… d]."""
    ids = check_ids(ids, self.sizes)[..., 0]
    return codebook.take(self._table(), ids)

  def _table(self) -> Array:
    return codebook.dot(jax.lax.stop_gradient(self.frozen), self.kernel)


TINY = dict(size=8, width=4)
