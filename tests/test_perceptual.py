"""Perceptual losses: parity with the public code, and what they promise."""

import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import perceptual as peer

from helpers.errors import error_names
from magvit_jax import registry, tree_utils
from magvit_jax.files import weight_file
from magvit_jax.losses import perceptual
from magvit_jax.nets import resnet50, vgg16

TINY = {"lpips": vgg16.TINY, "resnet50": resnet50.TINY}
SHAPE = (2, 5, 16, 16, 3)
kinds = pytest.mark.parametrize("name", TINY)


@pytest.fixture(scope="module")
def golden():
  with np.load(peer.GOLDEN) as file:
    return dict(file)


def converted(golden, source, loss):
  """The drawn public weights of a source, through `convert`, as a tree."""
  shapes = json.loads(str(golden["shapes"]))[source]
  module = importlib.import_module(f"magvit_jax.convert.nets.{source}")
  arrays = module.convert(peer.drawn({k: tuple(s) for k, s in shapes.items()}))
  return weight_file.fit(arrays, loss.abstract(), source)


@functools.cache
def tiny(name, frames=0):
  """A loss of a tiny net in float32, and its weights."""
  cfg = dict(name=name, weights="", fingerprint="", frames=frames)
  loss = perceptual.build(cfg | TINY[name], jnp.float32)
  return loss, drawn(loss.abstract())


def drawn(abstract):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: (
      rng.uniform(-0.3, 0.6, x.shape).astype(np.float32)
      if len(x.shape) > 1
      else rng.uniform(0.1, 0.2, x.shape).astype(np.float32)
    ),
    abstract,
  )


def pair(shape=SHAPE):
  rng = np.random.default_rng(1)
  return rng.uniform(-1, 1, (2, *shape)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def measured(distance, params, video, recon, cotangent):
  """Distances, and the gradient of their sum with other weights."""
  found, pull = jax.vjp(lambda y: distance(params, video, y), recon)
  return found, pull(cotangent)[0]


def test_lpips_and_its_gradient_equal_the_package(golden):
  loss = perceptual.build({"name": "lpips"}, jnp.float32)
  params = converted(golden, "vgg16_lpips", loss)
  # Two clips of a frame each go through as one batch, as in the package.
  video, recon = peer.frames(1)[:, None], peer.frames(2)[:, None]
  half = jnp.full((2, 1), 0.5)
  found, grad = measured(loss.distance, params, video, recon, half)
  np.testing.assert_allclose(found[:, 0], golden["lpips"], rtol=1e-4)
  # A ReLU near 0 may be on in one and off in the other.
  error = np.linalg.norm(grad[:, 0] - golden["lpips_grad"])
  assert error < 0.01 * np.linalg.norm(golden["lpips_grad"])


def test_resnet50_equals_torchvision(golden):
  size = dict(blocks=peer.BLOCKS, width=peer.WIDTH, classes=peer.CLASSES)
  loss = perceptual.build({"name": "resnet50", **size}, jnp.float32)
  params = converted(golden, "resnet50", loss)
  net = resnet50.Net(**size)
  logits = jax.jit(net.apply)({"params": params["net"]}, peer.frames(1))
  np.testing.assert_allclose(
    logits, golden["torchvision"], rtol=1e-4, atol=1e-4
  )


def test_the_logit_loss_equals_magvits(golden):
  size = dict(blocks=peer.BLOCKS, width=64, classes=peer.CLASSES)
  loss = perceptual.build(
    {"name": "resnet50", "origin": "flax", **size}, jnp.float32
  )
  params = converted(golden, "resnet50_flax", loss)
  video, recon = peer.frames(1)[None], peer.frames(2)[None]
  found = jax.jit(loss.loss)(params, video, recon)
  np.testing.assert_allclose(found, golden["magvit"], rtol=1e-4)


def test_the_whole_resnet50_has_the_names_and_shapes_of_the_public_one(golden):
  shapes = json.loads(str(golden["shapes"]))["resnet50_whole"]
  source = importlib.import_module("magvit_jax.convert.nets.resnet50")
  found = source.convert(
    {k: np.zeros(s, np.float32) for k, s in shapes.items()}
  )
  wanted = tree_utils.named(source.shapes())
  assert {k: v.shape for k, v in found.items()} == {
    k: v.shape for k, v in wanted.items()
  }
  # 25,557,032 of torchvision less one of the two numbers of each norm.
  assert tree_utils.count(source.shapes()) == 25_557_032 - 26_560


@pytest.mark.parametrize("name", registry.names("nets"))
def test_a_net_sees_each_frame_alone(name):
  module = importlib.import_module(f"magvit_jax.nets.{name}")
  net = registry.build("nets", {"name": name, **module.TINY})
  frames = pair((3, 16, 16, 3))[0]
  variables = drawn(jax.eval_shape(net.init, jax.random.key(0), frames))
  run = jax.jit(net.apply)
  whole, turned = run(variables, frames), run(variables, frames[::-1])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[::-1], b, rtol=1e-5, atol=1e-6),
    whole,
    turned,
  )
  assert all(float(jnp.std(x)) > 0 for x in jax.tree.leaves(whole))


@kinds
def test_parts_give_what_the_whole_gives_and_its_derivative(name):
  loss, params = tiny(name)
  video, recon = pair()
  weights = np.random.default_rng(2).uniform(-1, 1, SHAPE[:2])
  weights = weights.astype(np.float32)
  want, grad = measured(loss.distance, params, video, recon, weights)
  assert want.shape == SHAPE[:2] and want.dtype == jnp.float32
  assert (want > 0).all() and (jnp.abs(grad).max((2, 3, 4)) > 0).all()
  # Two at a time fill up the last part of the five frames.
  parts, _ = tiny(name, frames=2)
  found = measured(parts.distance, params, video, recon, weights)
  np.testing.assert_allclose(found[0], want, rtol=1e-4)
  largest = float(jnp.abs(grad).max())
  np.testing.assert_allclose(found[1], grad, atol=1e-4 * largest)
  # The derivative of the pass is that of the sum, by differences.
  step = np.float32(1e-2) * np.sign(grad)
  up, down = (
    np.sum(
      measured(loss.distance, params, video, recon + s, weights)[0] * weights
    )
    for s in (step, -step)
  )
  assert (up - down) / 2 == pytest.approx(float(jnp.sum(grad * step)), rel=0.1)


@kinds
def test_identical_videos_have_no_distance_and_a_finite_gradient(name):
  loss, params = tiny(name)
  video, _ = pair()
  ones = np.ones(SHAPE[:2], np.float32)
  found, grad = measured(loss.distance, params, video, video, ones)
  # XLA fuses the two sides differently: the last bit may differ.
  np.testing.assert_allclose(found, 0, atol=1e-12)
  np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_a_feature_of_zeros_has_a_finite_gradient_and_eps_is_outside_the_root():
  x = {"a": jnp.full((1, 1, 1, 1), 1e-10)}
  linear = {"a": jnp.ones(1)}

  def distance(y):
    return perceptual.feature_distance(x, {"a": y}, linear)[0]

  found, grad = jax.jit(jax.value_and_grad(distance))(jnp.zeros((1, 1, 1, 1)))
  np.testing.assert_allclose(found, 0.25, rtol=1e-5)  # (1e-10 / 2e-10)^2
  assert jnp.isfinite(grad).all()


@kinds
def test_weights_are_arguments_and_only_recon_has_a_gradient(name):
  loss, params = tiny(name, frames=1)
  video, recon = pair((1, 2, 16, 16, 3))
  grads = jax.grad(loss.loss, argnums=(0, 1, 2))
  program = jax.make_jaxpr(grads)(params, video, recon)
  assert sum(np.size(c) for c in program.consts) < 100
  zero, none, _ = jax.eval_shape(grads, params, video, recon)
  assert jax.tree.structure(zero) == jax.tree.structure(params)
  assert none.shape == video.shape


def test_bfloat16_is_near_float32_and_its_results_are_float32():
  loss, params = tiny("lpips")
  low = perceptual.build({"name": "lpips", **vgg16.TINY}, jnp.bfloat16)
  video, recon = pair()
  want, _ = measured(
    loss.distance, params, video, recon, np.ones(SHAPE[:2], np.float32)
  )
  found = jax.jit(low.loss)(params, video, recon.astype(jnp.bfloat16))
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, np.mean(want), rtol=0.05)
  assert found != np.mean(want)


def test_large_frames_are_smoothed_before_they_are_made_smaller():
  board = np.indices((672, 672)).sum(0) % 2 * 2.0 - 1
  frames = np.broadcast_to(board[None, ..., None], (1, 672, 672, 3))
  small = perceptual.resize(jnp.asarray(frames, jnp.float32))
  assert small.shape == (1, 224, 224, 3)
  assert float(jnp.abs(small).max()) < 0.3


def test_wrong_configs_are_named():
  assert perceptual.build({"name": "none"}, jnp.float32) is None
  with error_names(ValueError, "perceptual.name", "lpip", "lpips"):
    perceptual.build({"name": "lpip"}, jnp.float32)
  with error_names(ValueError, "perceptual.frames", -1):
    perceptual.build({"name": "lpips", "frames": -1}, jnp.float32)
  with error_names(TypeError, "vgg16", "width"):
    perceptual.build({"name": "lpips", "width": 3}, jnp.float32)
  wrong = perceptual.build({"name": "resnet50", "origin": "x"}, jnp.float32)
  with error_names(ValueError, "resnet50.origin", "x", "torchvision"):
    wrong.abstract()
  loss, params = tiny("lpips")
  with error_names(ValueError, "vgg16", "8x8", "16x16"):
    loss.loss(params, *pair((1, 1, 8, 8, 3)))
  with error_names(ValueError, "(2, 5, 16, 16, 3)", "(2, 4, 16, 16, 3)"):
    loss.loss(params, pair()[0], pair((2, 4, 16, 16, 3))[0])
