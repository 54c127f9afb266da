"""Residual quantization (RVQ; SoundStream, arXiv 2107.03312, algorithm 1).

  r_1 = z;  q_k = s_k Q_k(r_k / s_k);  r_{k+1} = r_k - q_k;  code = sum of q_k

around any quantizer Q with ids. The first k ids of a latent are a coarser code
of it: `lookup` takes them alone, and with `dropout` the decoder learns to read
them (quantizer dropout). Scales s_k = shrink^(k-1) are for quantizers of a
fixed range: 1/2 for lfq, 1/L_i for fsq in the form 'clipped' behind a soft
clamp of 1 + 1/(L_i - 1), as in the public residual FSQ.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.quantizers import Base, Quantized, check_ids, nested
from magvit_jax.types import Array, Key, PyTree


def soft_clamp(z: Array, limit: float | tuple[float, ...]) -> Array:
  """tanh(z / limit) * limit; limit 0 leaves z as it is."""
  if not np.any(limit):
    return z
  limit = np.asarray(limit, np.float32)
  return jnp.tanh(z / limit) * limit


class Quantizer(Base):
  """Residual quantizer.

  Its aux is the mean over the levels of what the base's has. The gradient
  passes straight through once, whatever the number of levels, and each level's
  terms reach the latent through its residual. All levels learn from all
  examples; dropout is about what the decoder sees.

  Attributes:
    base: config of a quantizer with ids, or the quantizer.
    depth: number of levels.
    shared: one set of params for all levels.
    dropout: share of the examples (first axis) whose code, when a key is given,
      is that of their first 1..depth-1 levels.
    shrink: ratio of the scales of successive levels, one or one per number.
    clamp: limit of a soft clamp of the latent, one or one per number; 0 none.
  """

  base: Mapping[str, Any] | nn.Module
  depth: int = 8
  shared: bool = False
  dropout: float = 0.0
  shrink: float | tuple[float, ...] = 1.0
  clamp: float | tuple[float, ...] = 0.0

  def __post_init__(self):
    super().__post_init__()
    nested.check_count("residual", "depth", self.depth)
    nested.check_share("residual", "dropout", self.dropout)
    width = nested.build_discrete("residual", self.base).dim
    for name in ("shrink", "clamp"):
      value = np.asarray(getattr(self, name))
      if value.shape not in ((), (width,)):
        raise ValueError(
          f"residual: {name} has {value.size} numbers; give one, or one for "
          f"each of the {width} of a latent"
        )
    if np.min(self.shrink) <= 0 or np.min(self.clamp) < 0:
      raise ValueError(
        f"residual: shrink is {self.shrink} and clamp {self.clamp}; shrink "
        "must be positive, and clamp positive or 0 for none"
      )

  def setup(self):
    self.levels = nested.copies(self.base, self.depth, self.shared)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return nested.build(self.base).dim

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor; the factors of the first level come first."""
    return tuple(nested.build(self.base).sizes) * self.depth

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key is for dropout and the base."""
    z = soft_clamp(z.astype(jnp.float32), self.clamp)
    rest, codes, outs = z, [], []
    for i, level in enumerate(self.levels):
      scale = self._scale(i)
      code, out = nested.quantize(level, rest / scale, nested.subkey(key, i))
      codes.append(nested.steady(nested.steady(code) * scale))
      outs.append(out)
      rest = rest - jax.lax.stop_gradient(codes[-1])
    kept = None
    if self.dropout and key is not None:
      last = jax.random.fold_in(key, self.depth)
      kept = nested.prefix_lengths(last, len(z), self.depth, self.dropout)
    return Quantized(
      nested.ste_with_params(z, nested.sum_levels(codes, kept)),
      jnp.concatenate([out.ids for out in outs], axis=-1),
      nested.mean_aux(outs),
      nested.join_stats("levels", outs, self.shared),
    )

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… f] of the first or all levels -> codes [… d].

    See check_ids for wrong ones.
    """
    width = len(self.sizes) // self.depth
    count = nested.level_count(ids, width, self.depth)
    ids = check_ids(ids, self.sizes[: count * width])
    parts = jnp.split(ids, count, axis=-1)
    codes = [
      nested.steady(nested.steady(level.lookup(part)) * self._scale(i))
      for i, (level, part) in enumerate(
        zip(self.levels[:count], parts, strict=True)
      )
    ]
    return nested.sum_levels(codes, None)

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Params with each level's refreshed."""
    return nested.refresh(self.base, params, stats, key)

  def _scale(self, i: int) -> np.ndarray:
    return np.asarray(self.shrink, np.float32) ** i


TINY = dict(base=dict(name="lfq", bits=3), depth=2, shrink=0.5)
