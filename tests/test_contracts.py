"""What every backbone and discriminator promises, for every file.

Those of quantizers are in test_contracts_quantizers.py.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax import registry, tokenizers
from magvit_jax.quantizers import lfq
from magvit_jax.tokenizers import Tokenizer, causal3d


def component(family, name, **extra):
  """The component `name` built from its TINY arguments."""
  module = importlib.import_module(f"magvit_jax.{family}.{name}")
  return registry.build(family, {"name": name, **module.TINY, **extra})


backbones = pytest.mark.parametrize("name", registry.names("tokenizers"))
causal_ones = pytest.mark.parametrize(
  "name",
  [
    name
    for name in registry.names("tokenizers")
    if registry.load("tokenizers", name).causal
  ],
)


@backbones
def test_shapes_are_those_of_latent_shape(name):
  module, variables = backbone(name)
  st, sh, sw = module.stride
  clips = [(2 * st, 2 * sh, 3 * sw)]
  if tokenizers.alone(module):
    clips = [(1, sh, sw), (1 + 2 * st, 2 * sh, 3 * sw)]
  for t, h, w in clips:
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
def test_bfloat16_ends_before_the_quantizer_and_the_pixels(name):
  module = component("tokenizers", name, dtype=jnp.bfloat16)
  st, sh, sw = module.stride
  video = jnp.zeros((1, st + tokenizers.alone(module), sh, sw, 3))

  def run(key, video):
    variables = module.init(key, video, method=both)
    latents = module.apply(variables, video, method=module.encode)
    return latents, module.apply(variables, latents, method=module.decode)

  made = jax.make_jaxpr(run)(jax.random.key(0), video)
  assert [x.dtype for x in made.out_avals] == [jnp.float32] * 2
  assert "bf16" in str(made)


@causal_ones
def test_no_latent_depends_on_a_later_frame(name):
  module, variables = backbone(name)
  check_causality(module, variables)


@causal_ones
def test_chunks_of_every_plan_give_what_the_whole_gives(name):
  module, variables = backbone(name)
  check_chunks(module, variables, compositions(4))


def backbone(name, **extra):
  module = component("tokenizers", name, **extra)
  st, sh, sw = module.stride
  video = jnp.zeros((1, st + tokenizers.alone(module), sh, sw, 3))
  return module, drawn(
    lambda key: module.init(key, video, method=both), jax.random.key(0)
  )


def drawn(init, *args):
  """Variables of the shapes that init gives, none of them 0.

  Layers that start at zero would hide a leak, and a compiled `init` costs more
  than all else here.
  """
  rng = np.random.default_rng(0)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(
      rng.normal(float(path[-1].key == "scale"), 0.2, leaf.shape), jnp.float32
    ),
    jax.eval_shape(init, *args),
  )


def both(module, video):
  return module.decode(module.encode(video))


def compositions(total):
  """All ways to write `total` as a sum of positive numbers, in order."""
  if not total:
    return [()]
  return [
    (n, *rest) for n in range(1, total + 1) for rest in compositions(total - n)
  ]


def compiled(module, method):
  """(variables, *args) -> what a method of a module returns.

  Not optimized: these programs run once or twice, and compiling them is what
  costs.
  """
  return jax.jit(
    functools.partial(module.apply, method=method),
    compiler_options={"xla_backend_optimization_level": 0},
  )


def encode(module):
  return compiled(module, module.encode)


def decode(module):
  return compiled(module, module.decode)


def check_causality(module, variables):
  """Derivatives to later frames are exactly zero, to earlier ones not."""
  st, sh, sw = module.stride
  video = jax.random.normal(
    jax.random.key(2), (1, 1 + 2 * st, 2 * sh, 2 * sw, 3)
  )
  codes = encode(module)(variables, video)
  for run, x, last in [
    (encode(module), video, lambda i: i * st),
    (decode(module), codes, lambda i: -(-i // st)),
  ]:
    for i, grad in enumerate(frame_gradients(run, variables, x)):
      assert (grad[: last(i) + 1] > 0).all(), (i, grad)
      np.testing.assert_array_equal(grad[last(i) + 1 :], 0)


@functools.partial(jax.jit, static_argnums=0)
def frame_gradients(run, variables, x):
  """[out frames, in frames]: the largest derivative of the sum of a frame."""
  out, pull = jax.vjp(lambda x: run.__wrapped__(variables, x), x)
  ones = jnp.broadcast_to(
    jnp.eye(out.shape[1])[:, None, :, None, None, None],
    (out.shape[1], *out.shape),
  )
  (grads,) = jax.vmap(pull)(ones)
  return jnp.abs(grads).max((1, 3, 4, 5))


def check_chunks(module, variables, plans):
  """Each plan of latent frames per chunk encodes and decodes as the whole does.

  The first chunk of a plan also shows that a prefix, such as an image, has the
  codes of its video. What is carried on has one size, however much came before,
  so that memory does not grow.
  """
  st, sh, sw = module.stride
  total = sum(plans[0])
  assert all(sum(plan) == total for plan in plans)

  def latents(n):
    return n

  def frames(n):
    return max(1 + (n - 1) * st, 0)

  x = jax.random.normal(
    jax.random.key(2), (1, frames(total), 2 * sh, 2 * sw, 3)
  )
  for method, before, after in [
    (module.encode_chunk, frames, latents),
    (module.decode_chunk, latents, frames),
  ]:
    run = functools.partial(compiled(module, method), variables)
    _, whole = run(None, x)
    atol, sizes = 1e-5 * float(jnp.std(whole)), set()
    for plan in plans:
      carry, done = None, 0
      for n in plan:
        carry, out = run(carry, x[:, before(done) : before(done + n)])
        want = whole[:, after(done) : after(done + n)]
        np.testing.assert_allclose(out, want, atol=atol)
        sure = jnp.abs(want) > 1e-4
        np.testing.assert_array_equal((out > 0)[sure], (want > 0)[sure])
        sizes.add(tuple(leaf.shape for leaf in jax.tree.leaves(carry)))
        done += n
    assert len(sizes) == 1
    x = whole


@pytest.mark.parametrize("name", registry.names("discriminators"))
def test_a_discriminator_judges_each_example_alone(name):
  module = component("discriminators", name)
  video = jax.random.normal(jax.random.key(0), (3, 5, 16, 16, 3))
  variables = drawn(module.init, jax.random.key(1), video)
  run = jax.jit(module.apply)
  logits = run(variables, video)
  assert logits.dtype == jnp.float32 and len(logits) == 3
  alone = run(variables, video[1:2])
  np.testing.assert_allclose(logits[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["residual", "mixer"])
@pytest.mark.parametrize("norm", ["frame_group", "position"])
@pytest.mark.parametrize("pad", ["zero", "replicate"])
def test_every_variant_of_causal3d_is_causal_and_streams(block, norm, pad):
  module, variables = backbone(
    "causal3d", block=block, norm=norm, pad=pad, patch=(2, 2, 2)
  )
  check_causality(module, variables)
  check_chunks(module, variables, [(1, 2)])


def test_ids_in_chunks_equal_those_of_the_whole():
  args = {k: v for k, v in causal3d.TINY.items() if k != "latent_dim"}
  quantizer = lfq.Quantizer(**lfq.TINY)
  tok = Tokenizer(
    causal3d.Backbone(latent_dim=quantizer.dim, **args), quantizer
  )
  video = jax.random.normal(jax.random.key(0), (1, 7, 8, 8, 3))
  variables = drawn(tok.init, jax.random.key(1), video)
  whole = compiled(tok, tok.encode)(variables, video)
  latents = compiled(tok, lambda tok, x: tok.backbone.encode(x))(
    variables, video
  )
  chunk = compiled(tok, tok.encode_chunk)
  carry, first = chunk(variables, None, video[:, :3])
  _, rest = chunk(variables, carry, video[:, 3:])
  chunks = jnp.concatenate([first, rest], axis=1)
  sure = jnp.all(jnp.abs(latents) > 1e-4, axis=-1)
  assert sure.mean() > 0.9
  np.testing.assert_array_equal(chunks[sure], whole[sure])
