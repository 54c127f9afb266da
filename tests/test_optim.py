"""Schedules, buffers, decay and clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.errors import error_names
from magvit_jax import optim, tree_utils

PARAMS = {
  "kernel": jnp.ones((2, 2)),
  "bias": jnp.ones(2),
  "book": {"buffer_codes": jnp.ones((3, 2))},
}


def _update(tx, grads, params=PARAMS):
  updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
  return optax.apply_updates(params, updates), state


def test_buffers_get_no_update_and_no_moments():
  tx = optim.make(10, lr=0.1, weight_decay=0.5, clip=1.0)
  new, state = _update(tx, PARAMS)
  np.testing.assert_array_equal(new["book"]["buffer_codes"], 1.0)
  assert (new["kernel"] < 1.0).all()
  assert not any("buffer_codes" in name for name in tree_utils.named(state))
  assert any("kernel" in name for name in tree_utils.named(state))


def test_buffers_do_not_count_in_the_clipped_norm():
  small = {"kernel": jnp.full((2, 2), 0.1), "bias": jnp.zeros(2)}
  tx = optim.make(10, lr=1.0, eps=1.0, schedule="constant", clip=1.0)
  grads = {**small, "book": {"buffer_codes": jnp.full((3, 2), 1e6)}}
  new, _ = _update(tx, grads)
  quiet = {**small, "book": {"buffer_codes": jnp.zeros((3, 2))}}
  same, _ = _update(tx, quiet)
  np.testing.assert_array_equal(new["kernel"], same["kernel"])


def test_decay_takes_matrices_only():
  tx = optim.make(10, lr=0.1, schedule="constant", weight_decay=0.5)
  # Layers that are scanned hold their biases and scales as matrices.
  layers = {"bias": jnp.ones((2, 3)), "scale": jnp.ones((2, 3))}
  params = {**PARAMS, "layers": layers}
  new, _ = _update(tx, jax.tree.map(jnp.zeros_like, params), params)
  np.testing.assert_allclose(new["kernel"], 1.0 - 0.1 * 0.5, rtol=1e-6)
  for kept in (new["bias"], *new["layers"].values()):
    np.testing.assert_array_equal(kept, 1.0)


def test_clip_bounds_what_reaches_the_moments():
  tx = optim.make(10, lr=1.0, b1=0.0, eps=1e3, schedule="constant", clip=1.0)
  grads = jax.tree.map(lambda p: 100.0 * jnp.ones_like(p), PARAMS)
  new, _ = _update(tx, grads)
  # Six trained scalars of equal size share a norm of 1.
  step = 6**-0.5 / (1e3 + 6**-0.5)
  np.testing.assert_allclose(1.0 - new["bias"], step, rtol=1e-3)


def test_schedule_warms_up_peaks_and_ends_at_zero():
  rate = optim.make_schedule(100, lr=2.0, warmup=10, schedule="cosine")
  values = np.array([rate(s) for s in (0, 4, 9, 10, 55, 100, 200)])
  np.testing.assert_allclose(
    values, [0.2, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0], atol=1e-6
  )


@pytest.mark.parametrize("name", optim.SHAPES)
def test_shapes_start_at_one_and_never_rise(name):
  values = np.array([optim.SHAPES[name](7)(s) for s in range(9)])
  assert values[0] == 1.0
  assert (np.diff(values) <= 0).all() and (values >= 0).all()


def test_ema_decay_warms_up():
  assert optim.ema_decay(0.999, 0) == np.float32(0.1)
  assert optim.ema_decay(0.999, 10**6) == np.float32(0.999)
  assert optim.ema_decay(0.999, 0, warmup=False) == np.float32(0.999)


@pytest.mark.parametrize(
  "args, named",
  [
    (dict(schedule="cosin"), ["optim.schedule", "cosin", "cosine"]),
    (dict(name="adamm"), ["optim.name", "adamm", "adam"]),
    (dict(warmup=11), ["optim.warmup", 11, 10]),
    (
      dict(name="adam", weight_decay=0.1),
      ["optim.weight_decay", 0.1, "adam", "adamw"],
    ),
  ],
)
def test_wrong_choices_say_the_cure(args, named):
  with error_names(ValueError, *named):
    optim.make(10, lr=0.1, **args)
