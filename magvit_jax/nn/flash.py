"""Attention as two Pallas kernels for TPU: logits never leave the chip.

After FlashAttention (arXiv 2205.14135), for sequences so short that a row of
logits fits the memory of the core: a program of the grid takes a block of
queries and all keys, so that nothing is rescaled. Heads lie beside each other
in the lanes, as the projections leave them; where two or more share the 128
lanes, the others are zeroed, as the matrix unit would only multiply padding.

The norm of queries and keys and their rotary positions (nn/turn.py) are part of
the kernels: outside, each would be several passes over the memory.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from magvit_jax.nn import turn as turns
from magvit_jax.nn.turn import LANES, Turn
from magvit_jax.types import Array

# What is held fits the 16 MiB that a kernel may take: logits of a block, and
# numbers in all keys of the heads that share the lanes.
AREA = 2**19
TILE = 16  # rows of a register of bfloat16
KEYS = 2**18


def fits(n: int, m: int, heads: int, d: int) -> bool:
  """Whether the kernels take n queries and m keys of heads of d channels."""
  whole = LANES % d == 0 or d % LANES == 0
  lanes = whole and heads * d % max(LANES, d) == 0
  return bool(lanes and n == m and _round(n) * max(LANES, d) <= KEYS)


def attend(
  q: Array,
  k: Array,
  v: Array,
  turn: Turn | None = None,
  interpret: bool = False,
) -> Array:
  """Softmax attention of [b n heads d], each of a shape that `fits`.

  Products take operands of q's dtype; logits, softmax and sums are float32.

  Args:
    q: queries.
    k: keys.
    v: values.
    turn: how queries and keys are normalised and turned first, if they are.
    interpret: whether to run the kernels without a TPU, for tests.
  """
  b, n, heads, d = q.shape
  flat = (x.reshape(b, n, heads * d) for x in (q, k, v))
  tables = turns.tables(turn, _round(n), d) if turn else ()
  return _attend(*flat, tables, d, interpret).reshape(q.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q, k, v, tables, d, interpret):
  grid, block, whole = _layout(q.shape, d)
  return pl.pallas_call(
    functools.partial(_forward_kernel, q.shape[1], d, len(tables)),
    grid=grid,
    in_specs=[block, whole, whole, *map(_shared, tables)],
    out_specs=block,
    out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
    scratch_shapes=[pltpu.VMEM(whole.block_shape[1:], q.dtype)],
    **_options(q.shape, 2, interpret),
    name="attention_forward",
  )(q, k, v, *tables)


def _forward(q, k, v, tables, d, interpret):
  return _attend(q, k, v, tables, d, interpret), (q, k, v, tables)


def _backward(d, interpret, kept, grad):
  q, k, v, tables = kept
  (b, n, width), (grid, block, whole) = q.shape, _layout(q.shape, d)
  lanes = whole.block_shape[2]
  held = pltpu.VMEM(whole.block_shape[1:], jnp.float32)
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
  outs = [block, whole, whole]
  if tables:
    outs.append(pl.BlockSpec((1, 2, lanes), lambda i, j, k: (i, 0, j)))
    shapes.append(jax.ShapeDtypeStruct((b, 2, width), jnp.float32))
  (*grads,) = pl.pallas_call(
    functools.partial(_backward_kernel, n, d, len(tables)),
    grid=grid,
    in_specs=[block, whole, whole, block, *map(_shared, tables)],
    out_specs=outs,
    out_shape=shapes,
    scratch_shapes=[held, held, pltpu.VMEM(held.shape, q.dtype)],
    **_options(q.shape, 5, interpret),
    name="attention_backward",
  )(q, k, v, grad, *tables)
  if not tables:
    return *grads, ()
  *grads, scale = grads
  scale = scale.reshape(b, 2, width // lanes, lanes).sum((0, 2))
  # Positions are not learned.
  return *grads, (scale, *map(jnp.zeros_like, tables[1:]))


_attend.defvjp(_forward, _backward)


def _layout(shape: tuple[int, ...], d: int) -> tuple[Any, ...]:
  """The grid, and what a program of it sees: a block of rows, or all."""
  b, n, width = shape
  lanes, size = max(LANES, d), _rows_of_a_block(n)
  block = pl.BlockSpec((1, size, lanes), lambda i, j, k: (i, k, j))
  whole = pl.BlockSpec((1, _round(n), lanes), lambda i, j, k: (i, 0, j))
  return (b, width // lanes, pl.cdiv(n, size)), block, whole


def _shared(table: Array) -> pl.BlockSpec:
  """All programs of the grid see all of a table."""
  return pl.BlockSpec(table.shape, lambda i, j, k: (0, 0))


def _options(shape, products: int, interpret: bool) -> dict:
  """What both calls share; the blocks of a head run in order."""
  b, n, width = shape
  size, rows = _rows_of_a_block(n), _round(n)
  area = b * pl.cdiv(n, size) * size * rows
  return dict(
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary")
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * products * area * width,
      transcendentals=area,
      bytes_accessed=4 * products * b * rows * width,
    ),
  )


def _forward_kernel(n, d, count, q_ref, k_ref, v_ref, *refs):
  tables, (out_ref, turned) = refs[:count], refs[count:]
  _turn_keys(n, d, k_ref, tables, turned)
  q, _ = _turn(_read(n, pl.program_id(2), q_ref), 0, d, tables)
  k, v = turned[...], _read(n, 0, v_ref)
  out = jnp.zeros(q.shape, jnp.float32)
  for own in turns.heads(q.shape, d):
    weights = _weights(jnp.where(own, q, 0), k, n, d)
    out = jnp.where(own, _dot(weights.astype(v.dtype), v, 1, 0), out)
  out_ref[0] = out.astype(out_ref.dtype)


def _backward_kernel(n, d, count, q_ref, k_ref, v_ref, grad_ref, *refs):
  """Adds up dk and dv over the blocks of queries, which run in order."""
  tables, outs = refs[:count], refs[count:-3]
  (dq_ref, dk_ref, dv_ref), (dk, dv, turned) = outs[:3], refs[-3:]
  step = pl.program_id(2)
  _turn_keys(n, d, k_ref, tables, turned)

  @pl.when(step == 0)
  def _():
    for ref in (dk, dv, *outs[3:]):
      ref[...] = jnp.zeros_like(ref)

  k, v = turned[...], _read(n, 0, v_ref)
  raw, grad = (_read(n, step, ref) for ref in (q_ref, grad_ref))
  q, back = _turn(raw, 0, d, tables)
  dq = jnp.zeros(q.shape, jnp.float32)
  for own in turns.heads(q.shape, d):
    q_own, grad_own = jnp.where(own, q, 0), jnp.where(own, grad, 0)
    weights = _weights(q_own, k, n, d)
    dv[...] += _dot(weights.astype(v.dtype), grad_own, 0, 0)
    slope = _dot(grad_own, v, 1, 1)
    slope -= jnp.sum(weights * slope, axis=1, keepdims=True)
    slope = (weights * slope * d**-0.5).astype(q.dtype)
    dq = jnp.where(own, _dot(slope, k, 1, 0), dq)
    dk[...] += _dot(slope, q_own, 0, 0)
  _store(dq_ref, dq, back, 0, outs[3:])

  @pl.when(step == pl.num_programs(2) - 1)
  def _():
    _, back = _turn(_read(n, 0, k_ref), 1, d, tables)
    _store(dk_ref, dk[...], back, 1, outs[3:])
    dv_ref[0] = dv[...].astype(dv_ref.dtype)


def _turn_keys(n, d, k_ref, tables, turned):
  """Once per head, before its first block of queries."""

  @pl.when(pl.program_id(2) == 0)
  def _():
    turned[...] = _turn(_read(n, 0, k_ref), 1, d, tables)[0]


def _turn(x, which, d, tables):
  """(x turned, its pullback); `which` is 0 for a block of queries, 1 for keys.

  The pullback gives the gradients of x and of the scale.
  """
  if not tables:
    return x, None
  scale, cos, sin = tables
  start = 0 if which else pl.program_id(2) * x.shape[0]
  rows = pl.ds(start, x.shape[0])
  own = (scale[which : which + 1], cos[rows], sin[rows])
  back = functools.partial(turns.pullback, x, *own, d)
  return turns.apply(x, *own, d), back


def _store(ref, grad, back, which, scales):
  if back:
    grad, scale = back(grad)
    scales[0][0, which : which + 1] += scale
  ref[0] = grad.astype(ref.dtype)


def _read(n: int, step: Any, ref: Any) -> Array:
  """Block `step` of an array of n rows; those beyond hold anything, so 0."""
  rows, lanes = ref.shape[1:]
  row = jax.lax.broadcasted_iota(jnp.int32, (rows, lanes), 0) + step * rows
  return jnp.where(row < n, ref[0], 0)


def _weights(q: Array, k: Array, n: int, d: int) -> Array:
  """Softmax [rows of q, rows of k]; keys from n on are padding."""
  logits = _dot(q, k, 1, 1) * d**-0.5
  if n < k.shape[0]:
    key = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    logits = jnp.where(key < n, logits, -jnp.inf)
  weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
  return weights / jnp.sum(weights, axis=1, keepdims=True)


def _dot(a: Array, b: Array, i: int, j: int) -> Array:
  """Contracts axis i of a with axis j of b, in float32."""
  return jax.lax.dot_general(
    a, b, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32
  )


def _round(n: int) -> int:
  return -(-n // LANES) * LANES


def _rows_of_a_block(n: int) -> int:
  """Rows of a block of queries: whole tiles, with logits within AREA.

  Of those that pad n queries least, the most.
  """
  rows = _round(n)
  sizes = range(LANES // 2, min(rows, AREA // rows) + 1, TILE)
  return min(sizes, key=lambda size: (pl.cdiv(n, size) * size, -size))
