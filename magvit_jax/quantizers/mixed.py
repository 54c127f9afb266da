"""Discrete or continuous latents, by example (OneVAE, arXiv 2508.09857).

One encoder and decoder are trained on the latents z and on their quantized
form; which one an example gets is drawn anew at every call with a key. (How
OneVAE mixes the two is not published.) As in OneVAE, the quantizer may lie
behind a linear map to its width and one back; they start as an orthonormal
basis and its transpose, so that what it sees of z is kept.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax.quantizers import Base, Quantized, nested
from magvit_jax.types import Array, Key, PyTree


class Quantizer(Base):
  """Mixed quantizer.

  Ids, and codes without a key, are those of the base. Its aux is that of both
  sides, each over all examples.

  Attributes:
    base: config of a quantizer with ids, or the quantizer.
    width: numbers per latent; 0 takes the width of the base, without the
      linear maps.
    share: share of the examples (first axis) that are discrete in training.
    form: the continuous side: 'identity' or 'kl' (see continuous).
  """

  base: Mapping[str, Any] | nn.Module
  width: int = 0
  share: float = 0.5
  form: str = "identity"

  def __post_init__(self):
    super().__post_init__()
    nested.check_share("mixed", "share", self.share)
    inner = nested.build_discrete("mixed", self.base).dim
    if self.width and self.width < inner:
      raise ValueError(
        f"mixed: width is {self.width}, less than the {inner} of the base; "
        f"make it at least {inner}, or 0 for no linear maps"
      )
    self._continuous()

  def setup(self):
    self.discrete = nested.build(self.base)
    self.continuous = self._continuous()
    if self.width:
      start = nn.initializers.orthogonal()
      shape = (self.width, self.discrete.dim)
      self.inward = self.param("inward", start, shape)
      self.outward = self.param("outward", lambda key: self.inward.T)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return self.width or nested.build(self.base).dim

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return tuple(nested.build(self.base).sizes)

  def ids_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the base."""
    inner = nested.build(self.base)
    return inner.ids_shape((*latent_shape[:-1], inner.dim))

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [b … d] -> Quantized; the key is for choice and both sides."""
    z = z.astype(jnp.float32)
    inner = z @ self.inward if self.width else z
    discrete = self.discrete(inner, key=nested.subkey(key, 0))
    smooth = self.continuous(z, key=nested.subkey(key, 1))
    codes = self._outward(discrete.codes)
    if key is not None:
      shape = z.shape[:1] + (1,) * (z.ndim - 1)
      chosen = jax.random.bernoulli(nested.subkey(key, 2), self.share, shape)
      codes = jnp.where(chosen, codes, smooth.codes)
    stats = {"discrete": discrete.stats} if discrete.stats else {}
    return Quantized(codes, discrete.ids, {**discrete.aux, **smooth.aux}, stats)

  def lookup(self, ids: Array) -> Array:
    """int32 ids -> codes [… d]; wrong ones as in the base."""
    return self._outward(self.discrete.lookup(ids))

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Params with those of the base refreshed."""
    return nested.refresh(self.base, params, stats, key)

  def _continuous(self) -> nn.Module:
    args = dict(name="continuous", form=self.form)
    return nested.build(args, width=self.dim)

  def _outward(self, codes: Array) -> Array:
    if not self.width:
      return codes
    return jnp.matmul(codes, self.outward, precision=jax.lax.Precision.HIGHEST)


TINY = dict(base=dict(name="fsq", levels=(4, 3)), width=3)
