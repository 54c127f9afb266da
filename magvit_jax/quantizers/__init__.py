"""Quantizers: latents to ids and back. Each file defines `Quantizer`.

A quantizer is a `Base` whose fields are its config, with

  dim: int                    property, width of its codes (the latent width)
  sizes: tuple[int, ...]      property, number of ids per factor; () continuous
  ids_shape(latent_shape)     shape of the ids of latents of that shape
  __call__(z, *, key=None)    -> Quantized; key None = evaluation
  lookup(ids)                 codes; lookup(q(z).ids) == q(z).codes exactly
  refresh(params, stats, key) params after the update (EMA codebooks, restarts)
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.types import Array, Key, PyTree


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


class Base(nn.Module):
  """What most quantizers have in common: ids in place, nothing to refresh."""

  def ids_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """[… d] -> [… f]."""
    return (*latent_shape[:-1], len(self.sizes))

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """The params of this quantizer after an update; here as they are."""
    del stats, key
    return params


@jax.custom_jvp
def ste(z: Array, q: Array) -> Array:
  """Straight-through estimator: the value is exactly q, the tangent is z's."""
  del z
  return q


@ste.defjvp
def _ste_jvp(primals, tangents):
  (_, q), (dz, _) = primals, tangents
  return q, dz.astype(q.dtype)


def check_ids(ids: Array, sizes: tuple[int, ...]) -> Array:
  """The ids, int32 [… f], made safe for `lookup`.

  Outside of jit ids out of range are an error; inside, where values are not
  known, they are clamped to the nearest id.

  Args:
    ids: integers [… f].
    sizes: number of ids of each of the f factors.

  Raises:
    TypeError: ids are not integers.
    ValueError: another number of factors, or (outside of jit) an id out of
      range.
  """
  if not jnp.issubdtype(ids.dtype, jnp.integer):
    raise TypeError(f"lookup: ids are {ids.dtype}; they must be integers")
  if not sizes or ids.ndim < 1 or ids.shape[-1] != len(sizes):
    raise ValueError(
      f"lookup: ids have shape {ids.shape}; their last axis must be the "
      f"{len(sizes)} factors of sizes {sizes}"
    )
  if isinstance(ids, jax.core.Tracer):
    return jnp.clip(ids, 0, np.asarray(sizes) - 1).astype(jnp.int32)
  known = np.asarray(ids)
  wrong = (known < 0) | (known >= np.asarray(sizes))
  if wrong.any():
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise ValueError(
      f"lookup: id {known[where]} of factor {where[-1]} is out of range; it "
      f"must lie in 0..{sizes[where[-1]] - 1}: the ids come from another "
      "quantizer"
    )
  return jnp.asarray(known, jnp.int32)
