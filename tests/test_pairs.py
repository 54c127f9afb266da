"""Frames in pairs, and what the backward pass keeps, change no number."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from helpers.errors import error_names
from magvit_jax.nn import blocks, pairs, target_platform
from magvit_jax.nn.conv import Conv, conv3d, order_of_axes
from magvit_jax.nn.group_norm import ClipGroupNorm
from magvit_jax.tokenizers import causal3d, cnn3d


@pytest.fixture(name="x", scope="module")
def fixture_x():
  return jax.random.normal(jax.random.key(0), (2, 4, 5, 5, 8))


def params(module, x):
  """Initial ones, moved away from zero and one."""
  made = jax.jit(module.init)(jax.random.key(1), x)
  return jax.tree.map(lambda leaf: leaf + 0.1, made)


def random(shapes):
  """Arrays for abstract ones, with nothing in them alike."""
  leaves, tree = jax.tree.flatten(shapes)
  keys = jax.random.split(jax.random.key(3), len(leaves))
  made = [
    0.2 * jax.random.normal(key, leaf.shape)
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(tree, made)


def test_fold_puts_frames_side_by_side(x):
  folded = pairs.fold(x)
  assert folded.shape == (2, 2, 5, 5, 16)
  chex.assert_trees_all_equal(folded[:, 1, ..., :8], x[:, 2])
  chex.assert_trees_all_equal(pairs.unfold(folded), x)
  chex.assert_trees_all_close(pairs.merge(folded)[:, 0], x[:, :2].mean(1))


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 1, 1), (5, 1, 1)])
def test_a_convolution_of_pairs_is_that_of_frames(x, kernel):
  weights = params(Conv(6, kernel), x)
  both, out = (Conv(6, kernel, pairs=name) for name in ("both", "out"))
  chex.assert_trees_all_close(
    pairs.unfold(both.apply(weights, pairs.fold(x))),
    Conv(6, kernel).apply(weights, x),
    atol=1e-5,
  )
  chex.assert_trees_all_close(
    pairs.unfold(out.apply(weights, x)),
    Conv(6, kernel).apply(weights, jnp.repeat(x, 2, axis=1)),
    atol=1e-5,
  )


def test_the_order_of_axes_on_tpu_changes_no_number(x):
  kernel = jax.random.normal(jax.random.key(5), (3, 2, 1, 8, 6))
  sides = ((0, 1), (1, 0), (2, 1))
  here = conv3d(x, kernel, (1, 2, 1), *sides)
  with target_platform.tracing_for("tpu"):
    assert order_of_axes(4) == (1, 2, 0)
    assert order_of_axes(17) == (0, 1, 2)
    there = conv3d(x, kernel, (1, 2, 1), *sides)
  assert here.shape == (2, 5, 3, 6, 6)
  chex.assert_trees_all_close(here, there, atol=1e-5)


def test_a_norm_of_pairs_is_that_of_frames(x):
  weights = params(ClipGroupNorm(), x)
  chex.assert_trees_all_close(
    pairs.unfold(ClipGroupNorm(pairs=True).apply(weights, pairs.fold(x))),
    ClipGroupNorm().apply(weights, x),
    atol=1e-5,
  )


def test_a_norm_is_that_of_linen():
  x = jax.random.normal(jax.random.key(4), (1, 2, 3, 3, 64)) * 2.0 + 1.0
  weights = params(ClipGroupNorm(), x)
  chex.assert_trees_all_close(
    ClipGroupNorm().apply(weights, x),
    nn.GroupNorm(32, epsilon=1e-6).apply(weights, x),
    atol=1e-5,
  )


def test_a_norm_keeps_its_digits_far_from_zero(x):
  """A mean of 1,000 would leave the variance of a sum of squares no digit."""
  weights = params(ClipGroupNorm(), x)
  near, far = (ClipGroupNorm().apply(weights, x + m) for m in (0.0, 1024.0))
  chex.assert_trees_all_close(near, far, atol=1e-3)


def test_pairs_only_where_they_pay():
  assert not pairs.pay(64, kernel=3, stride=2)  # this is a CPU
  with target_platform.tracing_for("tpu"):
    assert pairs.pay(64, kernel=3, stride=2)
    assert not pairs.pay(128, kernel=3, stride=2)
    assert not pairs.pay(64, kernel=1, stride=1)


def test_a_net_with_pairs_is_the_same_net(monkeypatch):
  video = jax.random.normal(jax.random.key(2), (1, 4, 8, 8, 3))
  net = cnn3d.Backbone(**cnn3d.TINY)
  weights = random(
    jax.eval_shape(
      lambda: net.init(jax.random.key(1), video, method=there_and_back)
    )
  )

  def run():
    return jax.jit(lambda p: net.apply(p, video, method=there_and_back))(
      weights
    )

  plain = run()
  monkeypatch.setattr(pairs, "pay", lambda *_, **__: True)
  chex.assert_trees_all_close(plain, run(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("policy", ["dots", "full"])
def test_remat_changes_no_gradient(x, policy):
  def gradient(policy):
    block = blocks.remat(cnn3d.Residual, policy)
    net = block(8, (3, 3, 3), jnp.float32, pairs=False, remat=policy)
    weights = random(jax.eval_shape(net.init, jax.random.key(1), x))
    loss = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(net.apply(p, x)))))
    return loss(weights)

  chex.assert_trees_all_close(
    gradient("none"), gradient(policy), rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize("block", ["residual", "mixer"])
def test_each_remat_of_a_causal_net_keeps_less_and_the_same_parameters(block):
  video = jax.ShapeDtypeStruct((1, 3, 8, 8, 3), jnp.float32)
  fields = {**causal3d.TINY, "blocks": 2, "adaptive": True}

  def bytes_kept(policy):
    net = causal3d.Backbone(**fields, block=block, remat=policy)
    loss = lambda p, v: net.apply(p, v, method=there_and_back)  # noqa: E731
    kept = jax.eval_shape(lambda p, v: jax.vjp(loss, p, v)[1], weights, video)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))

  nets = [
    causal3d.Backbone(**fields, block=block, remat=policy)
    for policy in causal3d.REMAT
  ]
  key = jax.random.key(0)
  shapes = [
    jax.eval_shape(
      functools.partial(net.init, method=there_and_back), key, video
    )
    for net in nets
  ]
  chex.assert_trees_all_equal_shapes(*shapes)
  weights = shapes[0]
  sizes = [bytes_kept(policy) for policy in ("none", "dots", "full", "levels")]
  if block == "mixer":  # it has no swish: 'dots' keeps what it computes
    del sizes[1]
  assert sizes == sorted(set(sizes), reverse=True), sizes


def test_remat_of_levels_changes_neither_gradients_nor_chunks():
  fields = {**causal3d.TINY, "adaptive": True}
  plain = causal3d.Backbone(**fields)
  again = causal3d.Backbone(**fields, remat="levels")
  video = jax.random.normal(jax.random.key(2), (1, 5, 8, 8, 3))
  init = functools.partial(plain.init, method=there_and_back)
  weights = random(jax.eval_shape(init, jax.random.key(0), video))

  def gradient(net):
    loss = lambda p: jnp.sum(  # noqa: E731
      jnp.sin(net.apply(p, video, method=there_and_back))
    )
    return jax.jit(jax.grad(loss))(weights)

  chex.assert_trees_all_close(
    gradient(plain), gradient(again), rtol=1e-3, atol=1e-3
  )

  def encode(net, carry, video):
    run = functools.partial(net.apply, method=net.encode_chunk)
    return jax.jit(run)(weights, carry, video)

  carry, first = encode(again, None, video[:, :3])
  _, second = encode(again, carry, video[:, 3:])
  _, whole = encode(plain, None, video)
  parts = jnp.concatenate([first, second], axis=1)
  chex.assert_trees_all_close(parts, whole, atol=1e-5)


def there_and_back(net, video):
  """The reconstruction, without a quantizer."""
  return net.decode(net.encode(video))


def test_remat_names_a_policy():
  assert set(blocks.REMAT) == {"none", "dots", "full"}
  with error_names(ValueError, "cnn3d", "remat", "dot", "dots"):
    cnn3d.Backbone(**cnn3d.TINY, remat="dot")
