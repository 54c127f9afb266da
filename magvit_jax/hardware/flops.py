"""FLOPs of a jaxpr: what the mathematics needs, before any compiler.

Dots and convolutions only, two FLOPs per multiply-add, loops times their trip
count. Taps of a convolution that fall on padding or between dilated pixels
are not counted. Pallas kernels are counted apart.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

# In the name stack of what `jax.checkpoint` computes again for a gradient.
RECOMPUTED = "rematted_computation"


class Flops(NamedTuple):
  """FLOPs of a program, on all devices together.

  Attributes:
    matmul: of dots and convolutions outside kernels.
    kernel: of Pallas kernels: their cost estimate, or the dots of the body
      times the grid.
    unbounded: loops whose trip count is not known; they count once.
  """

  matmul: float = 0.0
  kernel: float = 0.0
  unbounded: int = 0

  def __add__(self, other: "Flops") -> "Flops":
    return Flops(*(a + b for a, b in zip(self, other, strict=True)))

  def times(self, n: float) -> "Flops":
    """Of n runs."""
    return Flops(self.matmul * n, self.kernel * n, self.unbounded)


def count(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> Flops:
  """Adds up the equations of a jaxpr and of all that is inside."""
  inner = getattr(jaxpr, "jaxpr", jaxpr)
  return sum((_equation(e, count) for e in inner.eqns), Flops())


def live(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> core.Jaxpr:
  """The jaxpr without what no result needs; the compiler drops it too."""
  inner = getattr(jaxpr, "jaxpr", jaxpr)
  return partial_eval.dce_jaxpr(inner, [True] * len(inner.outvars))[0]


def model_flops(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> Flops:
  """FLOPs that the results need, without what remat computes again.

  The losses must be among the results, as those of a training step are: of a
  gradient alone, the forward pass may stand in the recomputation only.
  """
  return _count_once(live(jaxpr))


def _count_once(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> Flops:
  inner = getattr(jaxpr, "jaxpr", jaxpr)
  first = (e for e in inner.eqns if not _is_recomputed(e))
  return sum((_equation(e, _count_once) for e in first), Flops())


def _is_recomputed(e: Any) -> bool:
  """True for what repeats a forward pass because of `jax.checkpoint`."""
  return RECOMPUTED in str(e.source_info.name_stack)


def _inside(e: Any) -> list[Any]:
  """The jaxprs among the parameters of an equation."""
  found = []
  for value in e.params.values():
    items = value if isinstance(value, (tuple, list)) else (value,)
    found += [v for v in items if isinstance(v, (core.Jaxpr, core.ClosedJaxpr))]
  return found


def _equation(e: Any, count: Callable[[Any], Flops]) -> Flops:
  """FLOPs of an equation, `count` being applied to the jaxprs inside."""
  name = e.primitive.name
  if name == "dot_general":
    return Flops(matmul=_dot(e))
  if name == "conv_general_dilated":
    return Flops(matmul=_convolution(e))
  if name == "pallas_call":
    return Flops(kernel=_kernel(e))
  if name == "scan":
    return count(e.params["jaxpr"]).times(e.params["length"])
  if name == "while":
    body = count(e.params["body_jaxpr"])
    return body + Flops(unbounded=int(body.matmul + body.kernel > 0))
  if name == "cond":
    return max(map(count, e.params["branches"]), key=lambda f: f.matmul)
  return sum(map(count, _inside(e)), Flops())


def _dot(e: Any) -> float:
  (contracted, _), _ = e.params["dimension_numbers"]
  shape = e.invars[0].aval.shape
  depth = math.prod(shape[i] for i in contracted)
  return 2.0 * depth * math.prod(e.outvars[0].aval.shape)


def _convolution(e: Any) -> float:
  p, numbers = e.params, e.params["dimension_numbers"]
  (lhs, rhs), out = (v.aval.shape for v in e.invars), e.outvars[0].aval.shape
  taps = 1
  for axis in range(len(out) - 2):
    taps *= _taps(
      size=lhs[numbers.lhs_spec[2 + axis]],
      kernel=rhs[numbers.rhs_spec[2 + axis]],
      out=out[numbers.out_spec[2 + axis]],
      stride=p["window_strides"][axis],
      low=p["padding"][axis][0],
      holes=p["lhs_dilation"][axis],
      spread=p["rhs_dilation"][axis],
    )
  batch, features = (out[i] for i in numbers.out_spec[:2])
  # The kernel has the input features of one group.
  return 2.0 * batch * features * rhs[numbers.rhs_spec[1]] * taps


def _taps(size, kernel, out, stride, low, holes, spread) -> int:
  """Pairs of an output pixel and a tap that meet a real input pixel."""
  place = np.arange(out)[:, None] * stride + np.arange(kernel) * spread - low
  inside = (place >= 0) & (place <= (size - 1) * holes)
  return int((inside & (place % holes == 0)).sum())


def _kernel(e: Any) -> float:
  estimate = e.params.get("cost_estimate")
  if estimate is not None:
    return float(estimate.flops)
  grid = e.params["grid_mapping"].grid
  body = count(e.params["jaxpr"])
  return (body.matmul + body.kernel) * math.prod(grid)
