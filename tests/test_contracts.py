"""What every backbone and discriminator promises, for every file.

Those of quantizers are in test_contracts_quantizers.py.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax import registry
from magvit_jax.quantizers import lfq
from magvit_jax.tokenizers import Tokenizer, causal3d


def component(family, name, **extra):
  """The component `name` built from its TINY arguments."""
  module = importlib.import_module(f"magvit_jax.{family}.{name}")
  return registry.build(family, {"name": name, **module.TINY, **extra})


backbones = pytest.mark.parametrize("name", registry.names("tokenizers"))


@backbones
def test_shapes_are_those_of_latent_shape(name):
  module, variables = backbone(name)
  st, sh, sw = module.stride
  for t, h, w in [(1, sh, sw), (1 + 2 * st, 2 * sh, 3 * sw)]:
    if not module.causal and t == 1:
      continue
    video = jnp.zeros((2, t, h, w, 3))
    latents = jax.eval_shape(encode(module), variables, video)
    assert latents.shape == (2, *module.latent_shape(t, h, w))
    assert jax.eval_shape(decode(module), variables, latents).shape == (
      2,
      t,
      h,
      w,
      3,
    )


@backbones
def test_no_latent_depends_on_a_later_frame(name):
  module, variables = backbone(name)
  if not module.causal:
    pytest.skip("not causal")
  check_causality(module, variables)


@backbones
@pytest.mark.parametrize("plan", [(1, 1, 1, 1), (1, 2, 1), (2, 2), (3, 1)])
def test_chunks_give_what_the_whole_gives(name, plan):
  module, variables = backbone(name)
  if not module.causal:
    pytest.skip("not causal")
  check_chunks(module, variables, plan)


def backbone(name, **extra):
  module = component("tokenizers", name, **extra)
  st, sh, sw = module.stride
  video = jnp.zeros((1, 1 + st, sh, sw, 3))
  variables = jax.jit(lambda key: module.init(key, video, method=both))(
    jax.random.key(0)
  )
  noise = jax.random.key(1)  # layers that start at zero must not hide a leak
  return module, jax.tree.map(
    lambda p: p + 0.2 * jax.random.normal(noise, p.shape), variables
  )


def both(module, video):
  return module.decode(module.encode(video))


def encode(module):
  return lambda variables, x: module.apply(variables, x, method=module.encode)


def decode(module):
  return lambda variables, x: module.apply(variables, x, method=module.decode)


def check_causality(module, variables):
  """Derivatives to later frames are exactly zero, to earlier ones not."""
  st, sh, sw = module.stride
  frames, latents = 1 + 2 * st, 3
  video = jax.random.normal(jax.random.key(2), (1, frames, 2 * sh, 2 * sw, 3))
  codes = encode(module)(variables, video)
  for run, x, last in [
    (encode(module), video, lambda i: i * st),
    (decode(module), codes, lambda i: -(-i // st)),
  ]:
    for i in {0, 1, (latents if x is video else frames) - 1}:
      grad = jax.grad(lambda x, i=i, run=run: run(variables, x)[:, i].sum())(x)
      grad = np.abs(grad).max((0, 2, 3, 4))
      assert (grad[: last(i) + 1] > 0).all(), (i, grad)
      np.testing.assert_array_equal(grad[last(i) + 1 :], 0)


def check_chunks(module, variables, plan):
  """Encoded and decoded in chunks of `plan` latent frames, first + rest."""
  st, sh, sw = module.stride
  total = sum(plan)
  shape = (1, 1 + (total - 1) * st, 2 * sh, 2 * sw, 3)
  video = jax.random.normal(jax.random.key(2), shape)
  whole = encode(module)(variables, video)
  frames = [n * st for n in plan]
  frames[0] -= st - 1
  for method, x, lengths, want in [
    (module.encode_chunk, video, frames, whole),
    (module.decode_chunk, whole, plan, decode(module)(variables, whole)),
  ]:
    carry, parts = None, []
    for part in jnp.split(x, np.cumsum(lengths)[:-1], axis=1):
      carry, out = module.apply(variables, carry, part, method=method)
      parts.append(out)
    got = jnp.concatenate(parts, axis=1)
    np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.std(want)))


@pytest.mark.parametrize("name", registry.names("discriminators"))
def test_a_discriminator_judges_each_example_alone(name):
  module = component("discriminators", name)
  video = jax.random.normal(jax.random.key(0), (3, 5, 16, 16, 3))
  variables = module.init(jax.random.key(1), video)
  logits = module.apply(variables, video)
  assert logits.dtype == jnp.float32 and len(logits) == 3
  alone = module.apply(variables, video[1:2])
  np.testing.assert_allclose(logits[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["residual", "mixer"])
@pytest.mark.parametrize("norm", ["frame_group", "position"])
@pytest.mark.parametrize("pad", ["zero", "replicate"])
def test_every_variant_of_causal3d_is_causal_and_streams(block, norm, pad):
  module, variables = backbone(
    "causal3d", block=block, norm=norm, pad=pad, patch=(2, 2, 2)
  )
  check_causality(module, variables)
  check_chunks(module, variables, (1, 2))


def test_ids_in_chunks_equal_those_of_the_whole():
  args = {k: v for k, v in causal3d.TINY.items() if k != "latent_dim"}
  quantizer = lfq.Quantizer(**lfq.TINY)
  tok = Tokenizer(
    causal3d.Backbone(latent_dim=quantizer.dim, **args), quantizer
  )
  video = jax.random.normal(jax.random.key(0), (1, 7, 8, 8, 3))
  variables = tok.init(jax.random.key(1), video)
  whole = tok.apply(variables, video, method=tok.encode)
  latents = tok.bind(variables).backbone.encode(video)
  carry, first = tok.apply(
    variables, None, video[:, :3], method=tok.encode_chunk
  )
  _, rest = tok.apply(variables, carry, video[:, 3:], method=tok.encode_chunk)
  chunks = jnp.concatenate([first, rest], axis=1)
  sure = jnp.all(jnp.abs(latents) > 1e-4, axis=-1)
  assert sure.mean() > 0.9
  np.testing.assert_array_equal(chunks[sure], whole[sure])
