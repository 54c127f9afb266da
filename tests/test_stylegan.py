"""StyleGAN discriminators: published sizes, official values, their pools."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import magvit

from helpers.errors import error_names
from magvit_jax.discriminators import stylegan2d, stylegan3d
from magvit_jax.losses import adversarial
from magvit_jax.nn import resample, target_platform


@pytest.mark.parametrize(
  "width, size, multipliers, total",
  [
    (64, 128, (2, 4, 4, 4, 4), 15_339_457),
    (128, 128, (2, 4, 4, 4, 4), 61_341_569),
    (64, 64, (2, 4, 4, 4), 11_734_465),
    (128, 64, (2, 4, 4, 4), 46_922_625),
  ],
)
def test_parameters_are_those_of_the_official_code(
  width, size, multipliers, total
):
  net = stylegan3d.Discriminator(width, multipliers)
  video = jax.ShapeDtypeStruct((1, 16, size, size, 3), np.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), video)
  assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params)) == total


@pytest.mark.parametrize(
  "net, name",
  [
    (stylegan3d.Discriminator(**magvit.CRITIC), "logits3d"),
    (stylegan2d.Discriminator(**magvit.CRITIC), "logits2d_average"),
    (stylegan2d.Discriminator(**magvit.CRITIC, pool="blur"), "logits2d_blur"),
  ],
)
def test_logits_are_those_of_the_official_code(net, name):
  video = magvit.clip(magvit.ODD)
  params = {"params": magvit.drawn(net.init, video)}
  logits = jax.jit(net.apply)(params, video)
  with np.load(magvit.GOLDEN) as golden:
    np.testing.assert_allclose(logits, golden[name], rtol=2e-4, atol=1e-5)


def test_a_mean_over_a_cut_block_is_of_what_it_has():
  x = np.random.default_rng(0).normal(size=(1, 5, 4, 1, 2)).astype(np.float32)
  got = jax.jit(lambda x: resample.average_pool(x, (2, 2, 2)))(x)
  want = [
    x[:, i : i + 2, j : j + 2].mean((1, 2, 3))
    for i in (0, 2, 4)
    for j in (0, 2)
  ]
  want = np.stack(want, 1).reshape(1, 3, 2, 1, 2)
  np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("frames", [1, 4, 5])
def test_blur_is_the_strided_convolution_with_the_outer_product(
  frames, strides, platform
):
  x = jax.random.normal(jax.random.key(0), (1, frames, 4, 6, 2))
  line = np.array([1.0, 3.0, 3.0, 1.0], np.float32) / 8
  time = line if strides[0] > 1 else np.ones(1)
  cube = np.einsum("i,j,k->ijk", time, line, line)
  # Four samples in each direction, zeros beyond the edge, channel by channel.
  around = [
    (0, 0),
    (1, 2) if strides[0] > 1 else (0, 0),
    (1, 3),
    (1, 3),
    (0, 0),
  ]
  padded = np.pad(x, around)
  starts = [range(0, n, s) for n, s in zip(x.shape[1:4], strides, strict=True)]
  want = [
    np.einsum("bthwc,thw->bc", padded[_box(corner, cube.shape)], cube)
    for corner in itertools.product(*starts)
  ]
  want = np.stack(want, 1).reshape(1, *map(len, starts), 2)
  with target_platform.tracing_for(platform):
    got = jax.jit(lambda x: resample.blur_pool(x, strides))(x)
  np.testing.assert_allclose(got, want, atol=1e-6)


def _box(corner, size):
  cut = [slice(i, i + n) for i, n in zip(corner, size, strict=True)]
  return slice(None), *cut


def test_a_pool_that_does_not_exist_is_refused():
  for family in (stylegan2d, stylegan3d):
    with error_names(ValueError, "stylegan", "pool", "max", "average, blur"):
      family.Discriminator(pool="max")


def test_remat_keeps_parameters_and_both_derivatives_of_r1():
  video = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 3))
  found = []
  for policy in ("none", "full"):
    net = stylegan3d.Discriminator(**stylegan3d.TINY, remat=policy)
    params = net.init(jax.random.key(1), video)

    def penalty(params, net=net):
      critic = functools.partial(net.apply, params)
      logits, r1 = adversarial.r1(critic, video)
      return jnp.sum(logits) + r1

    kept = jax.eval_shape(lambda p, f=penalty: jax.vjp(f, p)[1], params)
    size = sum(x.size for x in jax.tree.leaves(kept))
    found.append((size, jax.jit(jax.grad(penalty))(params)))
  (much, plain), (little, again) = found
  assert little < much
  chex.assert_trees_all_close(plain, again, rtol=1e-5, atol=1e-5)


def test_remat_that_does_not_exist_is_refused():
  with error_names(ValueError, "stylegan", "remat", "ful", "full"):
    stylegan3d.Discriminator(remat="ful")
