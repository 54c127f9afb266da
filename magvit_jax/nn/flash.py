"""Attention as two Pallas kernels for TPU: logits never leave the chip.

After FlashAttention (arXiv 2205.14135), for sequences so short that a row of
logits fits the memory of the core: a program of the grid takes a block of
queries and all keys, so that nothing is rescaled. Heads lie beside each other
in the lanes, as the projections leave them; where two or more share the 128
lanes, the others are zeroed, as the matrix unit would only multiply padding.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from magvit_jax.types import Array

LANES = 128
AREA = 2**19  # logits of a block, so that what is held fits 16 MiB


def fits(n: int, m: int, heads: int, d: int) -> bool:
  """Whether the kernels take n queries and m keys of heads of d channels."""
  whole = LANES % d == 0 or d % LANES == 0
  lanes = whole and heads * d % max(LANES, d) == 0
  return bool(lanes and n == m and _round(n) * LANES <= AREA)


def attend(q: Array, k: Array, v: Array, interpret: bool = False) -> Array:
  """Softmax attention of [b n heads d], each of a shape that `fits`.

  Products take operands of q's dtype; logits, softmax and sums are float32.

  Args:
    q: queries.
    k: keys.
    v: values.
    interpret: whether to run the kernels without a TPU, for tests.
  """
  b, n, heads, d = q.shape
  flat = (x.reshape(b, n, heads * d) for x in (q, k, v))
  return _attend(*flat, d, interpret).reshape(q.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(q: Array, k: Array, v: Array, d: int, interpret: bool) -> Array:
  grid, block, whole = _layout(q.shape, d)
  return pl.pallas_call(
    functools.partial(_forward_kernel, q.shape[1], d),
    grid=grid,
    in_specs=[block, whole, whole],
    out_specs=block,
    out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
    **_options(q.shape, 2, "parallel", interpret),
    name="attention_forward",
  )(q, k, v)


def _forward(q, k, v, d, interpret):
  return _attend(q, k, v, d, interpret), (q, k, v)


def _backward(d, interpret, kept, grad):
  q, k, v = kept
  grid, block, whole = _layout(q.shape, d)
  held = pltpu.VMEM((_round(q.shape[1]), max(LANES, d)), jnp.float32)
  return pl.pallas_call(
    functools.partial(_backward_kernel, q.shape[1], d),
    grid=grid,
    in_specs=[block, whole, whole, block],
    out_specs=[block, whole, whole],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
    scratch_shapes=[held, held],
    **_options(q.shape, 5, "arbitrary", interpret),
    name="attention_backward",
  )(q, k, v, grad)


_attend.defvjp(_forward, _backward)


def _layout(shape: tuple[int, ...], d: int) -> tuple[Any, ...]:
  """The grid, and what a program of it sees: a block of rows, or all."""
  b, n, width = shape
  lanes, rows = max(LANES, d), _round(n)
  size = _rows_of_a_block(rows)
  block = pl.BlockSpec((1, size, lanes), lambda i, j, k: (i, k, j))
  whole = pl.BlockSpec((1, rows, lanes), lambda i, j, k: (i, 0, j))
  return (b, width // lanes, rows // size), block, whole


def _options(shape, products: int, order: str, interpret: bool) -> dict:
  """What both calls share; `order` is that of the blocks of a head."""
  b, n, width = shape
  rows = _round(n)
  return dict(
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", order)
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * products * b * rows * rows * width,
      transcendentals=b * rows * rows,
      bytes_accessed=4 * products * b * rows * width,
    ),
  )


def _forward_kernel(n, d, q_ref, k_ref, v_ref, out_ref):
  q, k, v = q_ref[0], _read(n, 0, k_ref), _read(n, 0, v_ref)
  out = jnp.zeros(q.shape, jnp.float32)
  for own in _heads(q.shape, d):
    weights = _weights(jnp.where(own, q, 0), k, n, d)
    out = jnp.where(own, _dot(weights.astype(v.dtype), v, 1, 0), out)
  out_ref[0] = out.astype(out_ref.dtype)


def _backward_kernel(
  n, d, q_ref, k_ref, v_ref, grad_ref, dq_ref, dk_ref, dv_ref, dk, dv
):
  """Adds up dk and dv over the blocks of queries, which run in order."""
  step = pl.program_id(2)

  @pl.when(step == 0)
  def _():
    dk[...] = jnp.zeros_like(dk)
    dv[...] = jnp.zeros_like(dv)

  k, v = _read(n, 0, k_ref), _read(n, 0, v_ref)
  q, grad = (_read(n, step, ref) for ref in (q_ref, grad_ref))
  dq = jnp.zeros(q.shape, jnp.float32)
  for own in _heads(q.shape, d):
    q_own, grad_own = jnp.where(own, q, 0), jnp.where(own, grad, 0)
    weights = _weights(q_own, k, n, d)
    dv[...] += _dot(weights.astype(v.dtype), grad_own, 0, 0)
    slope = _dot(grad_own, v, 1, 1)
    slope -= jnp.sum(weights * slope, axis=1, keepdims=True)
    slope = (weights * slope * d**-0.5).astype(q.dtype)
    dq = jnp.where(own, _dot(slope, k, 1, 0), dq)
    dk[...] += _dot(slope, q_own, 0, 0)
  dq_ref[0] = dq.astype(dq_ref.dtype)

  @pl.when(step == pl.num_programs(2) - 1)
  def _():
    dk_ref[0] = dk[...].astype(dk_ref.dtype)
    dv_ref[0] = dv[...].astype(dv_ref.dtype)


def _read(n: int, step: Any, ref: Any) -> Array:
  """Block `step` of an array of n rows; those beyond hold anything, so 0."""
  rows, lanes = ref.shape[1:]
  row = jax.lax.broadcasted_iota(jnp.int32, (rows, lanes), 0) + step * rows
  return jnp.where(row < n, ref[0], 0)


def _heads(shape: tuple[int, int], d: int) -> Iterator[Array]:
  """bool [rows lanes] per head of a block: the lanes that are its own."""
  lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  for head in range(max(1, LANES // d)):
    yield (lane >= head * d) & (lane < (head + 1) * d)


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


def _rows_of_a_block(rows: int) -> int:
  """The most that divide `rows` and keep a block of logits within AREA."""
  sizes = range(LANES, rows + 1, LANES)
  return max(s for s in sizes if rows % s == 0 and s * rows <= AREA)
