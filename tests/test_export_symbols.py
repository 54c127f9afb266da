"""Networks are traced with symbols for the numbers of clips and frames."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from magvit_jax import registry, tokenizers, tree_utils
from magvit_jax.export import programs
from magvit_jax.nn import conv_frames

VARIANTS = {
  "plain": {},
  "pools": dict(down="average", pad="replicate"),
  "led": dict(up="nearest", adaptive=True),
}


def symbols():
  return jax_export.symbolic_shape("b, k", constraints=(programs.POSITIVE,))


@pytest.mark.parametrize("name", registry.names("quantizers"))
def test_every_quantizer(name):
  module = importlib.import_module(f"magvit_jax.quantizers.{name}")
  own = registry.build("quantizers", {"name": name, **module.TINY})
  if not own.sizes:
    return  # it has no ids to encode into
  b, k = symbols()
  grid = (3 if name == "multiscale" else k, 4, 5)
  some = jax.ShapeDtypeStruct((2, 3, 4, 5, own.dim), jnp.float32)
  params = jax.eval_shape(own.init, jax.random.key(0), some)
  z = jax.ShapeDtypeStruct((b, *grid, own.dim), jnp.float32)
  ids = jax.eval_shape(lambda p, z: own.apply(p, z).ids, params, z)
  assert ids.shape == own.ids_shape(z.shape)
  codes = jax.eval_shape(
    lambda p, ids: own.apply(p, ids, method="lookup"), params, ids
  )
  assert codes.shape == z.shape


@pytest.mark.parametrize("name", registry.names("tokenizers"))
def test_every_backbone(name):
  tiny = importlib.import_module(f"magvit_jax.tokenizers.{name}").TINY
  backbone = {"name": name, **tiny}
  levels = (3,) * backbone.pop("latent_dim")
  quantizer = dict(name="fsq", levels=levels)
  stage = dict(backbone=backbone, quantizer=quantizer, dtype="float32")
  module = tokenizers.build_tokenizer(stage)
  st, sh, sw = module.strides
  frames = 2 * st + tokenizers.alone(module.backbone)
  data = dict(frames=frames, size=(2 * sh, 2 * sw))
  stage["name"] = "tokenizer"
  found = programs.programs(dict(stage=stage, data=data))
  video = found["encode"].arguments["video"]
  causal = module.backbone.causal
  assert isinstance(video.shape[1], int) != causal
  params = tree_utils.named(tokenizers.abstract(module))
  decode = found["decode"]
  back = jax.eval_shape(decode.make(), params, *decode.arguments.values())
  assert back.shape == video.shape


@pytest.mark.parametrize("name", VARIANTS)
def test_the_convolutions_of_a_cpu(name, monkeypatch):
  monkeypatch.setattr("magvit_jax.nn.conv.WORTH", 0)
  causal3d = importlib.import_module("magvit_jax.tokenizers.causal3d")
  backbone = {"name": "causal3d", **causal3d.TINY, **VARIANTS[name]}
  backbone |= dict(width=32)  # frames of more than conv_frames.FEW channels
  del backbone["latent_dim"]
  quantizer = dict(name="fsq", levels=(4, 3))
  stage = dict(backbone=backbone, quantizer=quantizer, dtype="float32")
  module = tokenizers.build_tokenizer(stage)
  params = {"params": tokenizers.abstract(module)}
  b, k = symbols()
  video = jax.ShapeDtypeStruct((b, 2 * k - 1, 4, 4, 3), jnp.float32)
  for method, shape in (("encode", (b, k, 2, 2, 1)), ("decode", video.shape)):
    run = functools.partial(module.apply, method=getattr(module, method))
    video = jax.eval_shape(run, params, video)
    assert video.shape == shape


def test_a_convolution_of_any_number_of_frames_is_that_of_each():
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((3, 3, 3, 20, 4)).astype(np.float32)

  def run(x):
    around = (1, 1)
    return conv_frames.convolve(x, kernel, (1, 1, 1), around, around)

  b, k = symbols()
  shape = jax.ShapeDtypeStruct((b, k + 2, 4, 4, 20), jnp.float32)
  exported = jax_export.export(jax.jit(run))(shape)
  for frames in (1, 2, 5):
    x = rng.standard_normal((2, frames + 2, 4, 4, 20)).astype(np.float32)
    y = exported.call(x)
    assert y.shape == (2, frames, 4, 4, 4)
    np.testing.assert_allclose(y, run(x), atol=1e-4)
