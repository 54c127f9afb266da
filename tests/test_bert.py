"""MAGVIT's BERT: published sizes, one vocabulary, and what makes it BERT."""

import collections
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import registry, sharding, transformers
from magvit_jax.configs import commit
from magvit_jax.transformers import bert

GRID = (2, 2, 2)


def build(sizes=(5, 7), classes=3, tasks=2, **args):
  net = {"name": "bert", **bert.TINY, **args}
  return transformers.build_model(
    net, sizes=sizes, classes=classes, tasks=tasks, dtype=jnp.float32
  )


@pytest.mark.parametrize(
  "classes,tasks,published",
  [
    (101, 1, dict(B=87_301_991, L=305_567_847)),  # UCF-101 by class
    (0, 1, dict(B=87_224_322, L=305_464_322)),  # frame prediction on BAIR
    (0, 8, dict(B=87_236_625, L=305_480_721)),  # eight tasks on BAIR
  ],
)
def test_the_number_of_weights_is_the_published_one(classes, tasks, published):
  ids, none = jnp.zeros((1, 4, 16, 16, 1), jnp.int32), jnp.zeros(1, jnp.int32)
  for size, count in published.items():
    model = build((1024,), classes, tasks, **commit.NETS[size])
    made = jax.eval_shape(model.init, jax.random.key(0), ids, none, none)
    assert sum(p.size for p in jax.tree.leaves(made)) == count


def test_words_follow_each_other_and_none_is_negative():
  words = bert.words((5, 7), classes=3, tasks=2)
  assert words == bert.Words((0, 5), label=12, mask=16, task=17, count=32)
  # A single task has no word of its own, and no slots for others.
  assert bert.words((1024,), classes=101, tasks=1).count == 1024 + 102 + 1
  bert.words((4,), classes=0, tasks=15)
  with error_names(ValueError, 16, 15, "modern"):
    bert.words((4,), classes=0, tasks=16)


class Echo(nn.Module):
  """A transformer that hands on what it gets, for a look at the words."""

  width: int
  dtype: jnp.dtype = jnp.float32

  def __call__(self, x, positions, *, key=None):
    del key
    before = len(positions) - np.prod(GRID)
    assert positions[:, 0].tolist()[: before + 1] == [*range(-before, 0), 0]
    self.sow("seen", "x", x)
    return x


@pytest.mark.parametrize("sizes,tasks", [((5, 7), 2), ((4, 2, 3), 1)])
def test_each_kind_of_token_is_its_row_of_the_one_table(sizes, tasks):
  """Any split into factors; a factor's MASK is the word for all."""
  model = bert.Model(Echo(width=6), sizes, classes=3, tasks=tasks)
  words = bert.words(sizes, 3, tasks)
  rng = np.random.default_rng(0)
  table = rng.normal(size=(words.count, 6)).astype(np.float32)
  bias = rng.normal(size=words.count).astype(np.float32)
  params = {"params": dict(embedding=table, bias=bias)}
  high = np.asarray(sizes) + 1
  ids = rng.integers(0, high, (3, *GRID, len(sizes))).astype(np.int32)
  label, task = np.asarray([0, 2, 3]), np.asarray([0, tasks - 1, 0])
  logits, state = model.apply(params, ids, label, task, mutable="seen")
  seen = state["seen"]["transformer"]["x"][0]
  before = [table[words.label + label]]
  if tasks > 1:
    before.insert(0, table[words.task + task])
  rows = [
    np.where(
      (ids[..., i] == size)[..., None],
      table[words.mask],
      table[words.codes[i] + np.minimum(ids[..., i], size - 1)],
    )
    for i, size in enumerate(sizes)
  ]
  inner = sum(rows)
  np.testing.assert_allclose(seen[:, : len(before)], np.stack(before, 1))
  np.testing.assert_allclose(
    seen[:, len(before) :], inner.reshape(3, 8, 6), rtol=1e-6
  )
  for first, size, own in zip(words.codes, sizes, logits, strict=True):
    want = inner @ table[first : first + size].T + bias[first : first + size]
    np.testing.assert_allclose(own, want, atol=1e-5)


@pytest.mark.parametrize(
  "change", [dict(ids=6), dict(ids=-1), dict(label=4), dict(task=2)]
)
def test_what_is_out_of_range_gives_nan_and_no_other_word(change):
  model = bert.Model(Echo(width=6), (5, 5), classes=3, tasks=2)
  count = bert.words((5, 5), 3, 2).count
  table, bias = jnp.ones((count, 6)), jnp.ones(count)
  params = {"params": dict(embedding=table, bias=bias)}
  given = dict(ids=0, label=0, task=0) | change
  _, state = model.apply(
    params,
    jnp.full((1, *GRID, 2), given["ids"]),
    jnp.full(1, given["label"]),
    jnp.full(1, given["task"]),
    mutable="seen",
  )
  assert jnp.isnan(state["seen"]["transformer"]["x"][0]).any()


@functools.cache
def stack():
  """(apply(params, x, key), params with noise, x)."""
  net = {"name": "bert", **bert.TINY, "dropout": 0.5}
  module = registry.build("transformers", net)
  where = transformers.positions(GRID, 1)
  x = jax.random.normal(jax.random.key(0), (2, len(where), module.width))
  made = jax.eval_shape(module.init, jax.random.key(1), x, where)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: (0.3 * rng.normal(size=p.shape)).astype(np.float32), made
  )
  apply = jax.jit(
    lambda params, x, key: module.apply(params, x, where, key=key)
  )
  return apply, params, x


def test_the_stack_is_bert_written_out():
  """Post-norm layers, tanh-GELU and the head, in numpy with float64."""
  apply, tree, x = stack()
  params = tree["params"]
  got = apply(tree, x, None)

  def norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * p["scale"] + p["bias"]

  def gelu(x):
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return x * (1 + np.tanh(inner)) / 2

  def dense(x, p):
    return x @ p["kernel"] + p["bias"]

  def attend(x, p):
    kernel = p["qkv"]["kernel"]
    q, k, v = (
      np.einsum("bnd,dihc->ibhnc", x, kernel)
      + (p["qkv"]["bias"][:, None, :, None, :])
    )
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    h = scores / scores.sum(-1, keepdims=True) @ v
    return dense(h.swapaxes(1, 2).reshape(x.shape), p["out"])

  h = norm(np.asarray(x, np.float64) + params["position"], params["norm"])
  for i in range(2):
    p = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
    h = norm(h + attend(h, p), p["norm_attention"])
    h = norm(h + dense(gelu(dense(h, p["up"])), p["down"]), p["norm_mlp"])
  want = norm(gelu(dense(h, params["head"])), params["norm_head"])
  np.testing.assert_allclose(got, want, atol=2e-4)


def test_dropout_needs_a_key_and_differs_by_key():
  apply, params, x = stack()
  sure = apply(params, x, None)
  one = apply(params, x, jax.random.key(0))
  two = apply(params, x, jax.random.key(1))
  assert np.abs(one - sure).max() > 0.01 and np.abs(one - two).max() > 0.01


def constrained(jaxpr):
  """Shapes of what is told how to lie on the mesh, and on which axes."""
  for e in jaxpr.eqns:
    if e.primitive.name == "sharding_constraint":
      yield e.outvars[0].aval.shape, tuple(e.params["sharding"].spec)
    for value in e.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from constrained(inner)


def test_every_weight_of_a_product_is_gathered_first():
  model = build(sizes=(256,), width=128, heads=2, hidden=256)
  ids, none = jnp.zeros((4, *GRID, 1), jnp.int32), jnp.zeros(4, jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), ids, none, none)
  auto = (jax.sharding.AxisType.Auto,) * 4
  abstract = jax.sharding.AbstractMesh((1, 2, 1, 1), sharding.AXES, auto)
  mesh = types.SimpleNamespace(abstract_mesh=abstract)
  with sharding.computing(mesh):
    traced = jax.make_jaxpr(model.apply)(params, ids, none, none)
  found = collections.Counter(constrained(traced.jaxpr))
  # Queries, keys, values and out, and the head; the layers are one scan.
  assert found[(128, 128), (None, None)] == 5
  assert found[(128, 256), (None, None)] == 1  # up
  assert found[(256, 128), (None, None)] == 2  # down, and the table of ids


@pytest.mark.parametrize(
  "args,named",
  [
    (dict(heads=5), [24, 5, "heads"]),
    (dict(remat="ful"), ["remat", "ful", "full"]),
    (dict(dropout=1.0), ["dropout", 1.0]),
  ],
)
def test_arguments_that_do_not_fit_are_refused(args, named):
  with error_names(ValueError, *named):
    build(**args)
