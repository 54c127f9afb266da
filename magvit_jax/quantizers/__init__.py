"""Quantizers: latents to ids and back. Each file defines `Quantizer`.

A quantizer is a linen Module whose fields are its config, with

  dim: int                    property, width of its codes (the latent width)
  sizes: tuple[int, ...]      property, number of ids per factor; () continuous
  ids_shape(latent_shape)     shape of the ids of latents of that shape
  __call__(z, *, key=None)    -> Quantized; key None = evaluation
  lookup(ids)                 codes; lookup(q(z).ids) == q(z).codes exactly
  refresh(params, stats, key) params after the update (EMA codebooks, restarts)
"""

from typing import NamedTuple

import jax

from magvit_jax.types import Array, PyTree


class Quantized(NamedTuple):
  """What a quantizer returns.

  Attributes:
    codes: [... d], the quantized latents; gradients pass straight through.
    ids: int32 [... f], one id per factor ([... 0] for continuous ones).
    aux: scalars; those named 'loss_…' are weighted by the stage, the rest is
      logged.
    stats: sums over the batch for `refresh`; {} for most.
  """

  codes: Array
  ids: Array
  aux: dict[str, Array]
  stats: PyTree


@jax.custom_jvp
def ste(z: Array, q: Array) -> Array:
  """Straight-through estimator: the value is exactly q, the tangent is z's."""
  del z
  return q


@ste.defjvp
def _ste_jvp(primals, tangents):
  (_, q), (dz, _) = primals, tangents
  return q, dz.astype(q.dtype)
