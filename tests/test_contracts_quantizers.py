"""What every quantizer promises, for every file in the folder."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import registry

GRIDS = ("lexical", "multiscale")  # they quantize a grid, not a latent
VARIANTS = {
  "vq-gradient": dict(name="vq", learn="gradient", gradient="rotation"),
  "vq-projected": dict(name="vq", code_dim=2, cosine=True),
  "lexical-projected": dict(name="lexical", code_dim=3),
  "residual-vq": dict(
    name="residual", base=dict(name="vq", size=8, width=4), shrink=1.0
  ),
}
NAMES = (*registry.names("quantizers"), *VARIANTS)
quantizers = pytest.mark.parametrize("name", NAMES)


def build(name):
  """The module of TINY or of a variant of it."""
  args = VARIANTS.get(name, dict(name=name))
  module = importlib.import_module(f"magvit_jax.quantizers.{args['name']}")
  return registry.build("quantizers", {**module.TINY, **args})


@functools.cache
def quantizer(name):
  """(module, variables, latents [2 3 4 5 d])."""
  module = build(name)
  z = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, module.dim)) * 2
  return module, jax.jit(module.init)(jax.random.key(1), z), z


@functools.cache
def gradients(name):
  """(params, z, key) -> (Quantized, gradients of params and z), eager."""
  module = quantizer(name)[0]

  def loss(params, z, key):
    out = module.apply({"params": params}, z, key=key)
    terms = [v for k, v in out.aux.items() if k.startswith("loss_")]
    return jnp.sum(jnp.sin(out.codes)) + sum(terms), out

  grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

  def run(params, z, key):
    (_, out), grads = grad(params, z, key)
    return out, grads

  return run


@functools.cache
def trained(name):
  """`gradients`, jitted."""
  return jax.jit(gradients(name))


def params_of(name):
  return quantizer(name)[1].get("params", {})


def assert_finite(tree):
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


@quantizers
def test_lookup_of_ids_is_the_codes_exactly(name):
  module, variables, z = quantizer(name)
  for apply in (module.apply, jax.jit(module.apply)):
    out = apply(variables, z)
    assert out.codes.shape == z.shape and out.codes.dtype == jnp.float32
    assert out.ids.dtype == jnp.int32
    assert out.ids.shape == module.ids_shape(z.shape)
    if module.sizes:
      codes = module.apply(variables, out.ids, method=module.lookup)
      # Compiled, a sum over scales may round once less (multiply-add).
      sums = name == "multiscale" and apply is not module.apply
      ulps = dict(rtol=0, atol=5e-7 if sums else 0)
      np.testing.assert_allclose(codes, out.codes, **ulps)


@quantizers
def test_ids_are_in_range_and_not_all_the_same(name):
  module, variables, z = quantizer(name)
  ids = np.asarray(module.apply(variables, z).ids)
  if not module.sizes:
    assert ids.shape[-1] == 0
    with error_names(ValueError, ids.shape):
      module.apply(variables, jnp.asarray(ids), method=module.lookup)
    return
  ids = ids.reshape(-1, len(module.sizes))
  assert (ids >= 0).all() and (ids < np.asarray(module.sizes)).all()
  assert (ids.max(0) > ids.min(0)).all()


@pytest.mark.parametrize("name", [n for n in NAMES if build(n).sizes])
def test_wrong_ids_are_an_error_and_are_clamped_under_jit(name):
  module, variables, z = quantizer(name)
  lookup = lambda ids: module.apply(variables, ids, method=module.lookup)  # noqa: E731
  ids = jnp.zeros(module.ids_shape(z.shape), jnp.int32)
  for wrong in (-1, module.sizes[-1]):
    with error_names(ValueError, wrong, f"0..{module.sizes[-1] - 1}"):
      lookup(ids.at[..., -1].set(wrong))
  with error_names(ValueError, ids[..., :0].shape):
    lookup(ids[..., :0])
  with error_names(TypeError, "float32"):
    lookup(ids.astype(jnp.float32))
  low = jax.jit(lookup)(ids - 5)
  np.testing.assert_allclose(low, lookup(ids), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
  "name, scale, run",
  [
    *((name, scale, trained) for name in NAMES for scale in (1.0, 30.0)),
    *((name, 30.0, gradients) for name in registry.names("quantizers")),
  ],
)
def test_gradients_are_finite_also_when_saturated(name, scale, run):
  params, z = params_of(name), quantizer(name)[2]
  of_params, of_z = run(name)(params, z * scale, None)[1]
  assert_finite((of_params, of_z))
  assert scale > 1 or np.abs(of_z).max() > 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
    assert not path[-1].key.startswith("buffer_") or not leaf.any(), path


@quantizers
def test_bfloat16_latents_are_quantized_in_float32(name):
  module, variables, z = quantizer(name)
  low = z.astype(jnp.bfloat16)
  out = module.apply(variables, low)
  same = module.apply(variables, low.astype(jnp.float32))
  np.testing.assert_array_equal(out.ids, same.ids)
  assert out.codes.dtype == jnp.float32


@quantizers
def test_an_empty_batch_has_zero_terms_and_one_latent_finite_ones(name):
  params, z = params_of(name), quantizer(name)[2]
  out, grads = trained(name)(params, z[:0], None)
  for term, value in out.aux.items():
    assert value == 0, term
  assert_finite(grads)
  one = z[:1] if name.split("-")[0] in GRIDS else z[:1, :1, :1, :1]
  assert_finite(trained(name)(params, one, None))


@quantizers
def test_a_key_decides_everything_and_adds_no_term(name):
  params, z = params_of(name), quantizer(name)[2]
  run = trained(name)
  still, drawn = run(params, z, None)[0], run(params, z, jax.random.key(5))[0]
  jax.tree.map(
    np.testing.assert_array_equal, drawn, run(params, z, jax.random.key(5))[0]
  )
  assert still.aux.keys() == drawn.aux.keys()
  assert still.codes.shape == drawn.codes.shape
  kept = {leaf.rsplit("'", 2)[-2] for leaf in paths(still.stats)}
  assert not any(leaf.startswith("pick_") for leaf in kept)


@quantizers
def test_refresh_takes_the_sum_of_stats_and_keeps_the_structure(name):
  module, _, z = quantizer(name)
  params = params_of(name)
  refresh = jax.jit(module.clone(parent=None).refresh)
  first = trained(name)(params, z, jax.random.key(5))[0].stats
  second = trained(name)(params, z + 1, jax.random.key(6))[0].stats
  stats = jax.tree_util.tree_map_with_path(
    lambda path, a, b: b if path[-1].key.startswith("pick_") else a + b,
    first,
    second,
  )
  empty = trained(name)(params, z[:0], jax.random.key(5))[0].stats
  for part in (first, stats, empty):
    new = refresh(params, part, jax.random.key(7))
    assert jax.tree.structure(new) == jax.tree.structure(params)
    jax.tree.map(lambda a, b: a.shape == b.shape or 1 / 0, new, params)
    assert_finite(new)
  if stats:
    moved = jax.tree.map(lambda a, b: np.any(a != b), new, params)
    assert any(jax.tree.leaves(moved))
    again = refresh(new, stats, jax.random.key(7))
    assert_finite(again)
    assert_finite(trained(name)(again, z, None))


def paths(tree):
  return [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]
