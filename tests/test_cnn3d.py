"""MAGVIT's 3D-VQ: the published sizes, and the official modules' values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import magvit

from helpers.errors import error_names
from magvit_jax.quantizers import vq
from magvit_jax.tokenizers import Tokenizer, cnn3d

BAIR = dict(multipliers=(1, 2, 4), strides=((2, 2, 2), (2, 2, 2)))


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "width, size, net, total",
  [
    (64, 128, {}, 40_579_843),
    (128, 128, {}, 157_811_971),
    (64, 64, BAIR, 36_596_355),
    (128, 64, BAIR, 141_882_371),
  ],
)
def test_parameters_and_grid_are_those_of_the_official_code(
  width, size, net, total
):
  codes = vq.Quantizer(1024, 256, learn="gradient", kmeans=0, restart=0.0)
  tok = Tokenizer(cnn3d.Backbone(codes.dim, width=width, **net), codes)
  video = jax.ShapeDtypeStruct((1, 16, size, size, 3), np.float32)
  params = jax.eval_shape(tok.init, jax.random.key(0), video)["params"]
  assert count(params) == total
  assert tok.latent_shape(16, size, size) == (4, 16, 16, 256)
  if total == 40_579_843:
    assert count(params["backbone"]["encoder"]) == 17_149_888
    assert count(params["backbone"]["decoder"]) == 23_167_811
    assert count(params["quantizer"]) == 262_144


@pytest.fixture(scope="module")
def net():
  """(params, encode, decode) of the net in the golden file."""
  module, video = cnn3d.Backbone(**magvit.NET), magvit.clip(magvit.VIDEO)
  init = functools.partial(module.init, method=magvit.both)
  encode, decode = (
    jax.jit(functools.partial(module.apply, method=method))
    for method in (module.encode, module.decode)
  )
  return {"params": magvit.drawn(init, video)}, encode, decode


def test_latents_and_pixels_are_those_of_the_official_code(net):
  params, encode, decode = net
  with np.load(magvit.GOLDEN) as golden:
    latents = encode(params, magvit.clip(magvit.VIDEO))
    np.testing.assert_allclose(latents, golden["latents"], atol=2e-5)
    recon = decode(params, golden["latents"])
    np.testing.assert_allclose(recon, golden["recon"], atol=2e-5)


def test_every_latent_sees_every_frame_of_its_clip_and_no_other_clip(net):
  params, encode, _ = net
  video = magvit.clip(magvit.VIDEO)
  other = video.copy()
  other[0, -1] *= -1.0
  moved = jnp.abs(encode(params, other) - encode(params, video)).max((2, 3, 4))
  assert not cnn3d.Backbone.causal and (moved[0] > 1e-3).all()
  np.testing.assert_array_equal(moved[1], 0)


@pytest.mark.parametrize(
  "shape, named",
  [
    ((17, 128, 128), ["cnn3d", 17, 4, 16]),
    ((1, 128, 128), ["cnn3d", 1, 4]),
    ((16, 128, 100), ["cnn3d", "128x100", "8x8", "128x104"]),
  ],
)
def test_clips_that_do_not_divide_are_refused(shape, named):
  with error_names(ValueError, *named):
    cnn3d.Backbone(256).latent_shape(*shape)


def test_levels_need_a_stride_between_each_two():
  with error_names(
    ValueError, "cnn3d", 3, 2, "((2, 2, 2), (2, 2, 2), (1, 2, 2))"
  ):
    cnn3d.Backbone(256, multipliers=(1, 2, 4))
