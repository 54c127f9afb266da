"""No quantization: the latent itself, or a sample of a Gaussian around it.

The contract of quantizers for continuous autoencoders, so that they share every
backbone and loop, and can be mixed with discrete ones. Form 'kl' is the
posterior of a VAE (Kingma and Welling, arXiv 1312.6114): mean z, log variance a
linear function of z, KL divergence from a standard normal

  1/2 sum over numbers of (mean^2 + var - 1 - ln var).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.quantizers import Base, Quantized
from magvit_jax.types import Array, Key

FORMS = ("identity", "kl")


def kl_divergence(mean: Array, log_var: Array) -> Array:
  """KL(N(mean, var) || N(0, 1)) in nats, summed over the last axis."""
  terms = jnp.square(mean) + jnp.exp(log_var) - 1 - log_var
  return 0.5 * jnp.sum(terms, axis=-1)


class Quantizer(Base):
  """Continuous latents: ids are empty, [… 0].

  Form 'kl' has the aux 'loss_kl': nats per latent position, averaged over
  positions. (Latent diffusion sums over the positions of an example and weighs
  that by 1e-6.) Its codes are samples when a key is given, else means.

  Attributes:
    width: numbers per latent.
    form: 'identity' or 'kl'.
    log_var: initial log variance of form 'kl'.
  """

  width: int = 16
  form: str = "kl"
  log_var: float = -4.0

  def __post_init__(self):
    super().__post_init__()
    if self.width < 1:
      raise ValueError(
        f"continuous: width is {self.width}; it must be positive"
      )
    messages.check_choice("continuous: form", self.form, FORMS)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return self.width

  @property
  def sizes(self) -> tuple[int, ...]:
    """(): there are no ids."""
    return ()

  @nn.compact
  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key is for sampling."""
    z = z.astype(jnp.float32)
    ids = jnp.zeros((*z.shape[:-1], 0), jnp.int32)
    if self.form == "identity":
      return Quantized(z, ids, {}, {})
    log_var = nn.Dense(
      self.width,
      kernel_init=nn.initializers.zeros,
      bias_init=nn.initializers.constant(self.log_var),
      name="log_var_of",
    )(z)
    log_var = jnp.clip(log_var, -30.0, 20.0)
    kl = jnp.sum(kl_divergence(z, log_var)) / max(z.size // self.width, 1)
    codes = z
    if key is not None:
      codes += jnp.exp(0.5 * log_var) * jax.random.normal(key, z.shape)
    return Quantized(codes, ids, {"loss_kl": kl}, {})

  def lookup(self, ids: Array) -> Array:
    """Always a ValueError: continuous latents have no ids."""
    raise ValueError(
      f"continuous: ids of shape {ids.shape} cannot be looked up: continuous "
      "latents have no ids; pass the codes themselves to the decoder"
    )


TINY = dict(width=3)
