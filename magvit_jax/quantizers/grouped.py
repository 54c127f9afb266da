"""Grouped quantization: product quantization, multi-head and multi-token codes.

The numbers of a latent are cut into groups, each with a quantizer of its own
(Jegou et al., 2011, for vq; the multi-token FSQ of OneVAE, arXiv 2508.09857):
code and ids are those of the groups side by side.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from magvit_jax.quantizers import Base, Quantized, check_ids, nested
from magvit_jax.types import Array, Key, PyTree


class Quantizer(Base):
  """Grouped quantizer.

  Its aux is the mean over the groups of what the base's has. The width of a
  latent is groups times that of the base.

  Attributes:
    base: config of a quantizer with ids, or the quantizer.
    groups: number of groups.
    shared: one set of params for all groups.
  """

  base: Mapping[str, Any] | nn.Module
  groups: int = 2
  shared: bool = False

  def __post_init__(self):
    super().__post_init__()
    nested.check_count("grouped", "groups", self.groups)
    nested.build_discrete("grouped", self.base)

  def setup(self):
    self.parts = nested.copies(self.base, self.groups, self.shared)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return nested.build(self.base).dim * self.groups

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor; the factors of the first group come first."""
    return tuple(nested.build(self.base).sizes) * self.groups

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key is for the base.

    Raises:
      ValueError: the width is not that of all groups.
    """
    if z.shape[-1] != self.dim:
      raise ValueError(
        f"grouped: latents are {z.shape[-1]} wide, but {self.groups} groups of "
        f"{self.dim // self.groups} need {self.dim}"
      )
    outs = [
      part(x, key=nested.subkey(key, i))
      for i, (part, x) in enumerate(
        zip(self.parts, jnp.split(z, self.groups, axis=-1), strict=True)
      )
    ]
    return Quantized(
      jnp.concatenate([out.codes for out in outs], axis=-1),
      jnp.concatenate([out.ids for out in outs], axis=-1),
      nested.mean_aux(outs),
      nested.join_stats("parts", outs, self.shared),
    )

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… f] -> codes [… d]; see check_ids for wrong ones."""
    ids = check_ids(ids, self.sizes)
    parts = jnp.split(ids, self.groups, axis=-1)
    return jnp.concatenate(
      [p.lookup(x) for p, x in zip(self.parts, parts, strict=True)], axis=-1
    )

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Params with each group's refreshed."""
    return nested.refresh(self.base, params, stats, key)


TINY = dict(base=dict(name="fsq", levels=(4, 3)), groups=2)
