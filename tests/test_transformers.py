"""Contract of transformers; embeddings, heads and rotary positions."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import registry, transformers
from magvit_jax.nn import attention, embed, rotary, stack
from magvit_jax.transformers import modern

every = pytest.mark.parametrize("name", registry.names("transformers"))
GRID = (2, 2, 3)


@functools.cache
def build(name, **extra):
  module = importlib.import_module(f"magvit_jax.transformers.{name}")
  module = registry.build(
    "transformers", {**module.TINY, "name": name, **extra}
  )
  where = transformers.positions(GRID)
  x = jax.random.normal(jax.random.key(0), (2, len(where), module.width))
  variables = jax.jit(module.init)(jax.random.key(1), x, where)
  return module, variables, x, where


@every
def test_shape_dtype_and_finite_gradients(name):
  module, variables, x, where = build(name, dtype=jnp.bfloat16)
  leaves = jax.tree.leaves(variables["params"])
  assert all(p.dtype == jnp.float32 for p in leaves)

  def loss(variables, x):
    out = module.apply(variables, x, where)
    assert out.shape == x.shape and out.dtype == jnp.bfloat16
    return jnp.sum(jnp.sin(out.astype(jnp.float32)))

  for grad in jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(variables, x)):
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0


@every
def test_every_token_sees_every_other_of_its_own_example(name):
  module, variables, x, where = build(name)

  def far(x, i):
    return jnp.sum(jnp.sin(module.apply(variables, x, where)[0, i]))

  grads = jax.jit(jax.grad(far))
  for i in (0, len(where) - 1):
    grad = np.abs(grads(x, i)).max(-1)
    assert (grad[0] > 0).all()
    np.testing.assert_array_equal(grad[1], 0)


@pytest.fixture(scope="module")
def net():
  module, variables, x, where = build("modern")
  return jax.jit(lambda x, where: module.apply(variables, x, where)), x, where


def test_permuted_tokens_give_permuted_outputs(net):
  apply, x, where = net
  order = np.random.default_rng(0).permutation(len(where))
  want = apply(x, where)[:, order]
  np.testing.assert_allclose(apply(x[:, order], where[order]), want, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_distances_count_along_each_axis(net, axis):
  apply, x, where = net
  out = apply(x, where)
  shift = 7 * np.eye(3, dtype=np.int32)[axis]
  np.testing.assert_allclose(apply(x, where + shift), out, atol=2e-5)
  one = where.copy()
  one[3, axis] += 1
  assert np.abs(apply(x, one) - out).max() > 1e-4


def test_remat_changes_nothing_but_memory():
  plain, variables, x, where = build("modern")

  def gradient(remat):
    module = plain.clone(remat=remat)
    return jax.grad(lambda v: jnp.sum(jnp.sin(module.apply(v, x, where))))

  names = list(stack.REMAT)
  grads = jax.jit(lambda v: [gradient(name)(v) for name in names])(variables)
  for name, other in zip(names, grads, strict=True):
    for p, q in zip(*map(jax.tree.leaves, (grads[0], other)), strict=True):
      np.testing.assert_allclose(p, q, atol=1e-5)
    text = str(jax.make_jaxpr(gradient(name))(variables))
    assert ("remat" in text) == (name != "none")


@every
def test_remat_dots_recomputes_neither_products_nor_dropout(name):
  plain, variables, x, where = build(name, dropout=0.5)

  def counted(remat, primitive):
    module = plain.clone(remat=remat)

    def loss(v, key):
      return jnp.sum(jnp.sin(module.apply(v, x, where, key=key)))

    text = str(jax.make_jaxpr(jax.grad(loss))(variables, jax.random.key(0)))
    # A scan is printed once, and the two of attention have a batch.
    return len(re.findall(primitive, text))

  bits, products = r" = random_bits\[", r"dimension_numbers=.*\(\[\], \[\]\)"
  for primitive in (bits, products):
    found = {remat: counted(remat, primitive) for remat in stack.REMAT}
    assert found["none"] == found["dots"] < found["full"], (primitive, found)


def test_dropout_needs_a_key_and_differs_by_layer_and_key():
  module, variables, x, where = build("modern", dropout=0.5)
  apply = jax.jit(lambda key: module.apply(variables, x, where, key=key))
  sure = apply(None)
  plain = jax.jit(build("modern")[0].apply)(variables, x, where)
  np.testing.assert_allclose(sure, plain, atol=1e-5)
  one, two = apply(jax.random.key(0)), apply(jax.random.key(1))
  assert np.abs(one - sure).max() > 0.01 and np.abs(one - two).max() > 0.01
  np.testing.assert_array_equal(one, apply(jax.random.key(0)))
  big = stack.drop(jnp.ones((400, 100)), 0.25, jax.random.key(0))
  assert set(np.unique(big)) == {0.0, np.float32(1 / 0.75)}
  np.testing.assert_allclose(big.mean(), 1, atol=0.02)


def test_the_branches_of_a_layer_share_a_draw_and_no_choice():
  ones = jnp.ones((400, 100))
  first, second = (
    np.asarray(branch(ones)) == 0
    for branch in stack.drops(ones.shape, 0.25, jax.random.key(0))
  )
  np.testing.assert_allclose(
    [first.mean(), second.mean(), (first & second).mean()],
    [1 / 4, 1 / 4, 1 / 16],
    atol=0.01,
  )


def test_rotation_keeps_lengths_and_every_axis_turns_its_own_pairs():
  table = rotary.frequencies(24, 100.0)
  assert ((table > 0).sum(0) == 1).all()
  assert (table > 0).sum(1).tolist() == [4, 4, 4]
  np.testing.assert_allclose(table.max(1), 1)
  x = jax.random.normal(jax.random.key(0), (1, 2, 1, 24))
  turned = rotary.rotate(
    x, rotary.angles(jnp.asarray([[0] * 3, [1, 2, 3]]), 24)
  )
  np.testing.assert_allclose(turned[:, 0], x[:, 0], atol=1e-6)
  np.testing.assert_allclose(
    jnp.sum(turned**2, -1), jnp.sum(x**2, -1), rtol=1e-5
  )


def test_attention_is_the_textbook_softmax():
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 1, 4, 2, 6)).astype(np.float32)
  mask = np.asarray([True, True, False, True])
  weights = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(6)
  weights = np.where(mask, np.exp(weights), 0)
  weights /= weights.sum(-1, keepdims=True)
  want = np.einsum("bhnm,bmhd->bnhd", weights, v)
  got = jax.jit(attention.attend)(q, k, v, mask[None, None, None])
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_embeddings_are_summed_and_heads_are_tied_without_mask():
  module = embed.FactorisedEmbed((3, 5), 8, jnp.bfloat16)
  ids = np.asarray([[0, 4], [3, 5]])  # the second is MASK
  variables = jax.jit(module.init)(jax.random.key(0), ids)
  tables = [np.asarray(variables["params"][f"table_{i}"]) for i in range(2)]
  assert [t.shape for t in tables] == [(4, 8), (6, 8)]
  embedding = jax.jit(module.apply)
  got = embedding(variables, ids)
  want = (tables[0][ids[:, 0]] + tables[1][ids[:, 1]]) * np.sqrt(8)
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=2e-3)
  heads = jax.jit(functools.partial(module.apply, method=module.heads))
  logits = heads(variables, np.ones((2, 8)))
  assert [x.shape for x in logits] == [(2, 3), (2, 5)]
  assert all(x.dtype == jnp.float32 for x in logits)
  np.testing.assert_allclose(logits[1][0], tables[1][:5].sum(1), atol=2e-3)
  assert np.isnan(embedding(variables, ids + 1)).any()


@pytest.mark.parametrize(
  "args,named",
  [
    (dict(heads=5), ["modern", 24, 5, "heads"]),
    (dict(heads=8), ["rotary", 3, 6, "heads"]),
    (dict(remat="ful"), ["remat", "ful", "full"]),
    (dict(dropout=1.0), ["modern", "dropout", 1.0]),
    (dict(base=1.0), ["rotary", "base", 1.0]),
  ],
)
def test_arguments_that_do_not_fit_are_refused(args, named):
  with error_names(ValueError, *named):
    registry.build("transformers", {**modern.TINY, "name": "modern", **args})
