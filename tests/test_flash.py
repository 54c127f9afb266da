"""The kernels of nn/flash.py against plain attention, without a TPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax import sharding
from magvit_jax.nn import attention, flash, target_platform
from magvit_jax.nn import turn as turns


def plain(q, k, v, turn):
  return attention.attend(q, k, v, turn=turn)


def both(function, arrays, turn, grad):
  """Results and gradients, of one output that weighs all rows."""
  out, back = jax.vjp(function, *arrays, turn)
  *grads, slope = back(grad)
  # Positions are not learned, and have no gradient in the kernels.
  return out, *grads, *(slope[:2] if turn else ())


def draw_turn(key, n, d):
  scale, angles = jax.random.split(key)
  query, key = 0.5 * jax.random.normal(scale, (2, d))
  return turns.Turn(query, key, jax.random.uniform(angles, (n, d // 2)) * 6)


@pytest.mark.parametrize(
  "n, heads, d, dtype, turned, tolerance",
  [
    (256, 1, 128, jnp.float32, False, 2e-6),
    (256, 1, 128, jnp.float32, True, 2e-5),
    (130, 4, 64, jnp.float32, True, 2e-5),  # padding, two heads side by side
    (130, 4, 32, jnp.bfloat16, False, 3e-2),
  ],
)
def test_values_and_gradients_are_those_of_plain_attention(
  n, heads, d, dtype, turned, tolerance, monkeypatch
):
  # Two blocks of queries where there are 256 rows, so that sums go on.
  monkeypatch.setattr(flash, "AREA", 128 * 256)
  *keys, last, pose = jax.random.split(jax.random.key(0), 5)
  shape = (2, n, heads, d)
  arrays = [jax.random.normal(k, shape, dtype) for k in keys]
  turn = draw_turn(pose, n, d) if turned else None
  args = arrays, turn, jax.random.normal(last, shape, dtype)
  kernel = functools.partial(flash.attend, interpret=True)
  got = jax.jit(functools.partial(both, kernel))(*args)
  want = jax.jit(functools.partial(both, plain))(*args)
  for ours, theirs in zip(got, want, strict=True):
    assert ours.dtype == theirs.dtype
    size = 1 + np.abs(theirs).max() * turned  # scales sum over all rows
    np.testing.assert_allclose(
      np.asarray(ours, np.float32),
      np.asarray(theirs, np.float32),
      atol=tolerance * size,
    )


def test_a_block_of_queries_keeps_its_area_and_pads_little():
  for n in range(1, 4097):
    rows, size = flash._round(n), flash._rows_of_a_block(n)
    padded = -(-n // size) * size
    assert size % flash.TILE == 0 and size * rows <= flash.AREA
    assert n <= padded <= rows
  assert flash._rows_of_a_block(1025) == 208  # 1,040 in all


@pytest.mark.parametrize(
  "n, m, heads, d, fits",
  [
    (1026, 1026, 16, 64, True),
    (2048, 2048, 2, 128, True),
    (2049, 2049, 2, 128, False),  # the keys of a head are too many
    (2048, 2048, 2, 256, False),
    (64, 32, 2, 64, False),  # not self-attention
    (64, 64, 1, 64, False),  # half of the lanes
    (64, 64, 4, 48, False),  # heads that would straddle the lanes
  ],
)
def test_what_the_kernels_take(n, m, heads, d, fits):
  assert flash.fits(n, m, heads, d) == fits


def test_kernels_run_on_a_tpu_under_a_mesh_only():
  q = jax.ShapeDtypeStruct((2, 16, 2, 64), jnp.float32)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])

  def traced(platform, inside):
    def apply(q):
      if not inside:
        return attention.attend(q, q, q)
      with sharding.computing(mesh):
        return attention.attend(q, q, q)

    with target_platform.tracing_for(platform):
      return "pallas_call" in str(jax.make_jaxpr(apply)(q))

  assert traced("tpu", inside=True)
  assert not traced("cpu", inside=True) and not traced("tpu", inside=False)
