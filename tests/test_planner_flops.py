"""FLOPs of jaxprs against counts made by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import pallas

from magvit_jax.hardware import flops

N = 8


def counted(function, *shapes):
  args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  return flops.count(jax.make_jaxpr(function)(*args))


def test_a_dot_counts_two_per_multiply_add():
  dot = counted(
    lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (5, 2, 3), (5, 3, 7)
  )
  assert dot.matmul == 2 * 5 * 2 * 3 * 7


def test_loops_multiply_and_nested_loops_too():
  def inner(x, w):
    return lax.scan(lambda h, _: (h @ w, None), x, None, length=3)[0]

  def outer(x, w):
    return lax.fori_loop(0, 5, lambda _, h: inner(h, w), x)

  one = 2 * N**3
  assert counted(inner, (N, N), (N, N)).matmul == 3 * one
  assert counted(outer, (N, N), (N, N)).matmul == 15 * one


def test_a_loop_without_known_trips_is_told():
  def f(x):
    return lax.while_loop(lambda h: h.sum() < 9, lambda h: h @ h, x)

  assert counted(f, (N, N)) == flops.Flops(2 * N**3, 0, 1)


def test_branches_count_as_the_dearest():
  def f(x, i):
    return lax.switch(i.astype(int)[0], [lambda h: h, lambda h: h @ h], x)

  assert counted(f, (N, N), (1,)).matmul == 2 * N**3


@pytest.mark.parametrize("remat", [False, True])
def test_remat_does_not_count_twice(remat):
  """Three products per layer: forward, and both gradients."""

  def loss(ws, x):
    def layer(h, w):
      return jnp.tanh(h @ w), None

    body = jax.checkpoint(layer) if remat else layer
    return lax.scan(body, x, ws)[0].sum()

  args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, N, N), (N, N))]

  step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(*args).jaxpr
  assert flops.model_flops(step).matmul == 4 * 3 * 2 * N**3
  assert flops.count(step).matmul == 4 * (3 + remat) * 2 * N**3


@pytest.mark.parametrize("order", [1, 2])
def test_remat_inside_of_remat_counts_as_none(order):
  """In a loss, and in one with the square of its gradient (R1)."""

  def net(remat, w, x):
    inner = remat(lambda h: jnp.tanh(h @ w))
    return remat(lambda h: jnp.tanh(inner(h) @ w))(x).sum()

  def penalty(remat, w, x):
    value, grad = jax.value_and_grad(functools.partial(net, remat), 1)(w, x)
    return value + (grad**2).sum()

  def step(remat):
    loss = functools.partial(net if order == 1 else penalty, remat)
    return jax.make_jaxpr(jax.value_and_grad(loss))(*[jnp.ones((N, N))] * 2)

  plain, again = step(lambda f: f), step(jax.checkpoint)
  assert flops.model_flops(plain) == flops.model_flops(again)
  assert flops.count(flops.live(again)) != flops.count(flops.live(plain))


def test_what_no_result_needs_is_not_counted():
  def f(x):
    def body(h, _):
      return (h[0] + 1, h[1] @ x), None

    return lax.scan(body, (x, x), None, length=3)[0][0] @ x

  args = jax.ShapeDtypeStruct((N, N), jnp.float32)
  traced = jax.jit(f).trace(args).jaxpr
  assert flops.count(traced).matmul == 4 * 2 * N**3
  assert flops.model_flops(traced).matmul == 2 * N**3


def test_custom_gradients_are_followed():
  @jax.custom_vjp
  def f(x):
    return x @ x

  f.defvjp(lambda x: (x @ x, x), lambda x, g: ((g @ x) @ x,))
  grad = jax.grad(lambda x: f(x).sum())
  assert counted(f, (N, N)).matmul == 2 * N**3
  assert counted(grad, (N, N)).matmul == 3 * 2 * N**3


def convolve(x, k, strides=(1,), padding="VALID", groups=1):
  return lax.conv_general_dilated(
    x,
    k,
    strides,
    padding,
    dimension_numbers=("NWC", "WIO", "NWC"),
    feature_group_count=groups,
  )


def test_convolutions_count_the_taps_on_pixels():
  # 6 outputs of 3 taps; zero padding adds two outputs but only 4 taps.
  valid = counted(convolve, (2, 8, 4), (3, 4, 5))
  assert valid.matmul == 2 * 2 * 5 * 4 * (6 * 3)
  same = counted(
    lambda x, k: convolve(x, k, padding="SAME"), (2, 8, 4), (3, 4, 5)
  )
  assert same.matmul == 2 * 2 * 5 * 4 * (6 * 3 + 2 * 2)


def test_groups_see_their_own_features_only():
  f = counted(lambda x, k: convolve(x, k, groups=4), (2, 8, 4), (3, 1, 4))
  assert f.matmul == 2 * 2 * 4 * 1 * (6 * 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_each_gradient_of_a_convolution_costs_what_it_does(stride):
  """Holes and padding of the transposed ones are free."""

  def loss(x, k):
    return convolve(x, k, strides=(stride,)).sum()

  shapes = ((2, 9, 4), (3, 4, 5))
  args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  once = counted(loss, *shapes).matmul
  assert once == 2 * 2 * 5 * 4 * (7 if stride == 1 else 4) * 3
  for argnum in (0, 1):
    grad = jax.make_jaxpr(jax.grad(loss, argnum))(*args)
    assert flops.count(grad).matmul in (once, 2 * once)
    alone = [e for e in grad.eqns if e.primitive.name == "conv_general_dilated"]
    assert flops.count(grad).matmul == len(alone) * once


@pytest.mark.parametrize("estimate", [None, 321])
def test_kernels_count_apart(estimate):
  def body(x, y, o):
    o[...] = jnp.dot(x[...], y[...])

  def f(x, y):
    rows = pallas.BlockSpec((2, N), lambda i: (i, 0))
    return pallas.pallas_call(
      body,
      grid=(4,),
      in_specs=[rows, pallas.BlockSpec((N, N), lambda i: (0, 0))],
      out_specs=rows,
      out_shape=jax.ShapeDtypeStruct((N, N), jnp.float32),
      cost_estimate=estimate
      and pallas.CostEstimate(estimate, transcendentals=0, bytes_accessed=0),
    )(x, y)

  found = counted(lambda x, y: f(x, y) @ y, (N, N), (N, N))
  assert found == flops.Flops(2 * N**3, estimate or 2 * N**3, 0)
