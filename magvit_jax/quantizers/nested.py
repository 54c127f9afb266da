"""What quantizers that wrap other quantizers share.

A wrapped quantizer is given as its config, such as dict(name='lfq', bits=4), or
as a module. Its params, and its stats, lie under the name of its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import registry
from magvit_jax.quantizers import Quantized
from magvit_jax.types import Array, Key, PyTree


def build(base: nn.Module | Mapping[str, Any], **extra: Any) -> nn.Module:
  """A new quantizer that belongs to no module yet."""
  if isinstance(base, nn.Module):
    return base.clone(parent=None, name=None, **extra)
  return registry.build("quantizers", base, parent=None, **extra)


def build_discrete(
  owner: str, base: nn.Module | Mapping[str, Any]
) -> nn.Module:
  """`build`; ValueError for a quantizer without ids."""
  module = build(base)
  if not module.sizes:
    raise ValueError(
      f"{owner}: its base {type(module).__module__.rsplit('.', 1)[-1]} has no "
      "ids; give it a discrete quantizer"
    )
  return module


def copies(
  base: nn.Module | Mapping[str, Any], count: int, shared: bool
) -> list[nn.Module]:
  """`count` quantizers with params of their own, or one `count` times."""
  if shared:
    return [build(base)] * count
  return [build(base) for _ in range(count)]


def check_count(owner: str, name: str, value: int) -> None:
  """ValueError unless value >= 1."""
  if value < 1:
    raise ValueError(f"{owner}: {name} is {value}; it must be at least 1")


def check_share(owner: str, name: str, value: float) -> None:
  """ValueError unless 0 <= value <= 1."""
  if not 0 <= value <= 1:
    raise ValueError(
      f"{owner}: {name} is {value}; it is a share of the examples, in [0, 1]"
    )


def subkey(key: Key | None, i: int) -> Key | None:
  """The key of part i; None stays None."""
  return None if key is None else jax.random.fold_in(key, i)


@jax.custom_jvp
def ste_with_params(z: Array, q: Array) -> Array:
  """The value is exactly q, the tangent is z's plus q's.

  For a q whose own dependence on z has been stopped, so that what is left in
  its tangent is that of the params of quantizers.
  """
  del z
  return q


@ste_with_params.defjvp
def _jvp(primals, tangents):
  (_, q), (dz, dq) = primals, tangents
  return q, dz.astype(q.dtype) + dq


def quantize(
  level: nn.Module, z: Array, key: Key | None
) -> tuple[Array, Quantized]:
  """(codes whose gradient reaches the params but not z, Quantized of z).

  A sum of levels must pass the gradient to z once, not once per level. The two
  calls have the same values, and a compiled program computes them once.
  """
  return level(jax.lax.stop_gradient(z), key=key).codes, level(z, key=key)


def mean_aux(outs: Sequence[Quantized]) -> dict[str, Array]:
  """Each entry of aux, averaged over the parts."""
  return {
    name: sum(out.aux[name] for out in outs) / len(outs) for name in outs[0].aux
  }


def join_stats(
  prefix: str, outs: Sequence[Quantized], shared: bool
) -> dict[str, PyTree]:
  """Stats of the parts under the names of their params.

  Of a shared quantizer the sums are added over its uses, and the last rows
  picked for restarts are kept.
  """
  if not jax.tree.leaves(outs[0].stats):
    return {}
  if not shared:
    return {f"{prefix}_{i}": out.stats for i, out in enumerate(outs)}
  total = outs[0].stats
  for out in outs[1:]:
    total = jax.tree_util.tree_map_with_path(_add, total, out.stats)
  return {f"{prefix}_0": total}


def _add(path, total: Array, new: Array) -> Array:
  return new if str(path[-1].key).startswith("pick_") else total + new


def refresh(
  base: nn.Module | Mapping[str, Any],
  params: PyTree,
  stats: dict[str, PyTree],
  key: Key,
) -> PyTree:
  """Params with those of each part that has stats refreshed by `base`."""
  new = dict(params)
  module = build(base)
  for i, name in enumerate(sorted(stats)):
    part_key = jax.random.fold_in(key, i)
    new[name] = module.refresh(params[name], stats[name], part_key)
  return new


def prefix_lengths(key: Key, examples: int, count: int, share: float) -> Array:
  """How many of `count` levels each example keeps, int32 [b].

  A `share` of the examples keeps 1..count-1 of them, evenly, the others all.
  """
  which, how = jax.random.split(key)
  cut = jax.random.bernoulli(which, share, (examples,))
  kept = jax.random.randint(how, (examples,), 1, max(count, 2))
  return jnp.where(cut, jnp.minimum(kept, count), count)


def steady(code: Array) -> Array:
  """The code to 22 bits: the same number wherever a sum of it is compiled.

  A compiler may fuse the last product inside a code with the sum around it and
  round once instead of twice; codes would then differ from their lookup in the
  last bit. It cannot skip this rounding.
  """
  return jax.lax.reduce_precision(code, exponent_bits=8, mantissa_bits=22)


def sum_levels(codes: Sequence[Array], kept: Array | None) -> Array:
  """Sum of the levels [b … d] in order, of the first kept[b] if given."""
  total = codes[0]
  for i, code in enumerate(codes[1:], start=1):
    if kept is not None:
      on = (kept > i).reshape(-1, *(1,) * (code.ndim - 1))
      code = jnp.where(on, code, 0.0)
    total = total + code
  return total


def level_count(ids: Array, width: int, count: int) -> int:
  """How many levels of `width` factors the ids [… f] have; 1..count."""
  levels, rest = divmod(ids.shape[-1], width)
  if rest or not 1 <= levels <= count:
    raise ValueError(
      f"lookup: ids have shape {ids.shape}; their last axis must be {width} "
      f"factors for each of the first 1 to {count} levels"
    )
  return levels
