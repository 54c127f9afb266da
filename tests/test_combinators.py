"""Quantizers around quantizers: identities, gradients, params and stats."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.quantizers import (
  Quantized,
  additive,
  fsq,
  grouped,
  lfq,
  mixed,
  multiscale,
  nested,
  residual,
  ste,
)

LFQ = dict(name="lfq", bits=4)
FSQ = dict(name="fsq", levels=(4, 3))
CLIPPED = dict(name="fsq", levels=(5, 4), form="clipped")


class Table(nn.Module):
  """Nearest row of a table, with the sums an EMA codebook would need."""

  dim: int = 4
  rows: int = 16

  @property
  def sizes(self):
    return (self.rows,)

  def setup(self):
    init = nn.initializers.normal(1.0)
    self.table = self.param("buffer_table", init, (self.rows, self.dim))

  def __call__(self, z, *, key=None):
    far = jnp.sum(jnp.square(z[..., None, :] - self.table), -1)
    ids = jnp.argmin(far, -1)[..., None].astype(jnp.int32)
    stats = {"count": jnp.float32(z.size), "pick_row": z.reshape(-1, 4)[0]}
    return Quantized(ste(z, self.lookup(ids)), ids, {}, stats)

  def lookup(self, ids):
    return self.table[ids[..., 0]]

  def refresh(self, params, stats, key):
    return {"buffer_table": params["buffer_table"] + stats["count"]}


@pytest.fixture(scope="module")
def z():
  return jax.random.normal(jax.random.key(0), (6, 5, 4))


def run(module, z, **kwargs):
  """(variables, Quantized) of a fresh module, in one compiled program."""

  @jax.jit
  def both(z):
    variables = module.init(jax.random.key(1), z)
    return variables, module.apply(variables, z, **kwargs)

  return both(z)


def test_a_base_is_a_config_or_a_module(z):
  by_config = residual.Quantizer(base=LFQ, depth=2)
  by_module = residual.Quantizer(base=lfq.Quantizer(bits=4), depth=2)
  one, two = run(by_config, z)[1], run(by_module, z)[1]
  np.testing.assert_array_equal(one.ids, two.ids)
  assert by_config.sizes == by_module.sizes == (16, 16)


def test_residual_signs_halve_the_error_with_each_level():
  """Signs at scale 2^-k are a binary expansion of numbers in (-2, 2)."""
  z = jax.random.uniform(jax.random.key(0), (50, 4), minval=-2, maxval=2)
  module = residual.Quantizer(base=LFQ, depth=6, shrink=0.5)
  ids = run(module, z)[1].ids
  for count in range(1, 7):
    codes = module.apply({}, ids[:, :count], method=module.lookup)
    assert np.abs(codes - z).max() <= 2.0 ** (1 - count) + 1e-6


def test_residual_fsq_refines_a_clamped_latent(z):
  levels = np.array(CLIPPED["levels"])
  module = residual.Quantizer(
    base=CLIPPED,
    depth=4,
    shrink=tuple(1 / levels),
    clamp=tuple(1 + 1 / (levels - 1)),
  )
  z = 3 * z[..., :2]
  out = run(module, z)[1]
  look = jax.jit(lambda ids: module.apply({}, ids, method=module.lookup))
  np.testing.assert_array_equal(look(out.ids), out.codes)
  limit = 1 + 1 / (levels - 1)
  clamped = np.tanh(z / limit) * limit
  worst = [
    np.abs(clamped - code).max(axis=(0, 1)) for code in prefixes(module, out)
  ]
  for k, error in enumerate(worst):
    assert (error <= 1.0 / (levels - 1) * levels ** (-1.0 * k) + 1e-5).all(), k


def prefixes(module, out):
  width = len(module.sizes) // module.depth
  return [
    module.apply({}, out.ids[..., : k * width], method=module.lookup)
    for k in range(1, module.depth + 1)
  ]


def test_the_gradient_passes_once_whatever_the_depth(z):
  weights = jax.random.normal(jax.random.key(2), z.shape)
  for module in (
    residual.Quantizer(base=LFQ, depth=3),
    additive.Quantizer(base=LFQ, books=3, sweeps=1),
  ):
    loss = lambda z, m=module: jnp.sum(weights * m.apply({}, z).codes)  # noqa: E731
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(z), weights)


def test_terms_of_every_level_reach_the_latent(z):
  """d/dz of the mean over levels of |r_k - q_k|^2 is the mean 2 (r_k - q_k)."""
  module = residual.Quantizer(base=LFQ, depth=3)

  @jax.jit
  @jax.grad
  def grad(z):
    return module.apply({}, z).aux["loss_commitment"]

  rest, want = np.asarray(z), 0
  for _ in range(3):
    rest = rest - np.where(rest > 0, 1, -1)
    want = want + 2 * rest / z.size / 3
  np.testing.assert_allclose(grad(z), want, atol=1e-6)


def test_params_learn_through_the_codes_of_all_levels(z):
  """Bernoulli's dictionary has no other gradient than that of its codes."""
  base = dict(name="bernoulli", width=4, bits=3, factors=1)
  scales = ((1, 1), (2, 3))
  for module, x in (
    (residual.Quantizer(base=base, depth=2), z),
    (additive.Quantizer(base=base, books=2, sweeps=0), z),
    (
      multiscale.Quantizer(base=base, scales=scales, shared=False),
      z[None, :2, :3],
    ),
  ):
    variables = run(module, x)[0]
    out = jax.jit(module.apply)(variables, x)
    loss = lambda v, m=module, x=x: jnp.sum(m.apply(v, x).codes)  # noqa: E731
    grads = jax.jit(jax.grad(loss))(variables)["params"]
    for level in grads.values():
      assert np.abs(level["table"]).max() > 0
    look = module.apply(variables, out.ids, method=module.lookup)
    np.testing.assert_array_equal(look, out.codes)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("family", [residual, grouped, multiscale, additive])
def test_stats_lie_like_params_and_refresh_reaches_every_part(
  family, shared, z
):
  z = jnp.concatenate([z, -z], -1) if family is grouped else z
  args = {
    residual: dict(depth=2),
    grouped: dict(groups=2),
    multiscale: dict(scales=((2,), (5,))),
    additive: dict(books=2),
  }[family]
  if family is not additive:
    args["shared"] = shared
  module = family.Quantizer(base=Table(), **args)
  variables, out = run(module, z)
  params = variables["params"]
  one = family is not additive and shared
  assert len(params) == (1 if one else 2)
  assert set(out.stats) == set(params)
  new = module.refresh(params, out.stats, jax.random.key(0))
  parts = (
    [6 * 2 * 4, z.shape[0] * 5 * 4] if family is multiscale else [120.0] * 2
  )
  counts = [sum(parts)] if one else parts
  for name, count in zip(sorted(params), counts, strict=True):
    moved = new[name]["buffer_table"] - params[name]["buffer_table"]
    np.testing.assert_allclose(moved, count, rtol=1e-5)
  if family is grouped:
    last = sorted(params)[-1]
    np.testing.assert_array_equal(out.stats[last]["pick_row"], z[0, 0, 4:])


def test_dropout_keeps_a_prefix_of_each_example_and_only_with_a_key():
  z = jax.random.normal(jax.random.key(0), (64, 3, 4))
  module = residual.Quantizer(base=LFQ, depth=3, shrink=0.5, dropout=0.5)
  out = run(module, z, key=jax.random.key(5))[1]
  levels = np.stack(prefixes(module, out))
  same = np.all(levels == np.asarray(out.codes), axis=(2, 3))
  assert same.any(0).all()
  kept = np.argmax(same, axis=0) + 1
  share = np.bincount(kept, minlength=4)[1:] / 64
  assert share[2] == pytest.approx(0.5, abs=0.2) and (share[:2] > 0.1).all()
  np.testing.assert_array_equal(run(module, z)[1].codes, levels[-1])


def test_a_group_is_the_base_on_its_part(z):
  module = grouped.Quantizer(base=FSQ, groups=2)
  out = run(module, z)[1]
  base = fsq.Quantizer(levels=(4, 3))
  for i, part in enumerate(jnp.split(z, 2, axis=-1)):
    alone = run(base, part)[1]
    np.testing.assert_array_equal(out.ids[..., i : i + 1], alone.ids)
    np.testing.assert_array_equal(
      out.codes[..., 2 * i : 2 * i + 2], alone.codes
    )
  assert module.dim == 4 and module.sizes == (12, 12)


def test_wrappers_wrap_wrappers():
  """Groups of residual signs: 36 bits in 6 ids."""
  base = dict(
    name="residual", base=dict(name="lfq", bits=6), depth=3, shrink=0.5
  )
  module = grouped.Quantizer(base=base, groups=2)
  z = jax.random.normal(jax.random.key(0), (2, 3, 12))
  out = run(module, z)[1]
  assert module.dim == 12 and module.sizes == (64,) * 6
  look = module.apply({}, out.ids, method=module.lookup)
  np.testing.assert_array_equal(look, out.codes)


def test_additive_without_sweeps_is_residual_and_sweeps_lower_the_error(z):
  books = [
    additive.Quantizer(base=Table(), books=3, sweeps=s) for s in (0, 1, 4)
  ]
  variables = run(books[0], z)[0]
  greedy = jax.jit(books[0].apply)(variables, z)
  chain = residual.Quantizer(base=Table(), depth=3)
  same = jax.jit(chain.apply)(variables, z)
  np.testing.assert_array_equal(greedy.ids, same.ids)
  np.testing.assert_array_equal(greedy.codes, same.codes)
  errors = [
    np.square(jax.jit(m.apply)(variables, z).codes - z).sum(-1) for m in books
  ]
  assert (errors[1] <= errors[0] + 1e-5).all()
  assert (errors[2] <= errors[1] + 1e-5).all()
  assert errors[1].mean() < 0.95 * errors[0].mean()


def test_one_scale_is_the_base_and_equal_scales_are_residual():
  z = jax.random.normal(jax.random.key(0), (2, 3, 4, 2))
  one = run(multiscale.Quantizer(base=FSQ, scales=((3, 4),)), z)[1]
  base = run(fsq.Quantizer(levels=(4, 3)), z)[1]
  np.testing.assert_array_equal(one.codes, base.codes)
  np.testing.assert_array_equal(one.ids.reshape(base.ids.shape), base.ids)
  two = run(multiscale.Quantizer(base=CLIPPED, scales=((3, 4), (3, 4))), z)[1]
  chain = run(residual.Quantizer(base=CLIPPED, depth=2), z)[1]
  np.testing.assert_array_equal(two.codes, chain.codes)


@pytest.mark.parametrize("resize", list(multiscale.RESIZES))
def test_scales_refine_and_their_first_ids_are_a_coarse_code(resize):
  z = jax.random.uniform(jax.random.key(0), (2, 4, 6, 4), minval=-1, maxval=1)
  smooth = jnp.cumsum(z, axis=1) / 4
  scales = ((1, 1), (2, 3), (3, 3), (4, 6), (4, 6))
  base = dict(name="fsq", levels=(9,) * 4, form="clipped")
  module = multiscale.Quantizer(base=base, scales=scales, resize=resize)
  out = run(module, smooth)[1]
  assert out.ids.shape == module.ids_shape(z.shape) == (2, 1 + 6 + 9 + 48, 1)
  errors = []
  for count in np.cumsum([1, 6, 9, 24, 24]):
    codes = module.apply({}, out.ids[:, :count], method=module.lookup)
    errors.append(float(jnp.mean(jnp.square(codes - smooth))))
  np.testing.assert_array_equal(codes, out.codes)
  assert errors[0] > 2 * errors[3] and errors[3] <= 1 / 8**2


def test_resizing_matrices():
  pool = multiscale.pool_matrix(5, 2)
  np.testing.assert_allclose(
    pool, [[1 / 3] * 3 + [0] * 2, [0] * 2 + [1 / 3] * 3]
  )
  for name, matrix in multiscale.RESIZES.items():
    full = matrix(7, 3)
    np.testing.assert_allclose(full.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(matrix(4, 4), np.eye(4), err_msg=name)
  x = np.array([0.0, 4.0])
  np.testing.assert_allclose(multiscale.linear_matrix(4, 2) @ x, [0, 1, 3, 4])
  np.testing.assert_allclose(multiscale.repeat_matrix(4, 2) @ x, [0, 0, 4, 4])


def test_mixed_draws_a_side_for_each_example():
  z = jax.random.normal(jax.random.key(0), (64, 3, 2))
  module = mixed.Quantizer(base=FSQ)
  plain = run(module, z)[1]
  base = run(fsq.Quantizer(levels=(4, 3)), z)[1]
  np.testing.assert_array_equal(plain.codes, base.codes)
  out = run(module, z, key=jax.random.key(3))[1]
  np.testing.assert_array_equal(out.ids, base.ids)
  discrete = np.all(np.asarray(out.codes) == base.codes, axis=(1, 2))
  continuous = np.all(np.asarray(out.codes) == np.asarray(z), axis=(1, 2))
  assert (discrete ^ continuous).all()
  assert 16 < discrete.sum() < 48


def test_mixed_maps_keep_what_the_base_sees():
  """With as many numbers inside as outside the maps are a rotation and back."""
  base = dict(name="fsq", levels=(255,) * 3, form="clipped")
  z = 0.2 * jax.random.normal(jax.random.key(0), (8, 3))
  module = mixed.Quantizer(base=base, width=3, form="kl")
  variables, out = run(module, z)
  np.testing.assert_allclose(out.codes, z, atol=0.02)
  assert (
    np.abs(
      out.codes - fsq.Quantizer(**base_args(base)).apply({}, z).codes
    ).max()
    > 0
  )
  assert "loss_kl" in out.aux and module.dim == 3
  loss = lambda v: jnp.sum(module.apply(v, z).codes)  # noqa: E731
  grads = jax.jit(jax.grad(loss))(variables)["params"]
  assert (
    np.abs(grads["inward"]).max() > 0 and np.abs(grads["outward"]).max() > 0
  )


def base_args(cfg):
  return {k: v for k, v in cfg.items() if k != "name"}


CONTINUOUS = dict(name="continuous")


@pytest.mark.parametrize(
  "call, named",
  [
    (lambda: residual.Quantizer(base=LFQ, depth=0), ["depth", 0]),
    (lambda: residual.Quantizer(base=CONTINUOUS), ["residual", "continuous"]),
    (lambda: residual.Quantizer(base=LFQ, dropout=2.0), ["dropout", 2.0]),
    (lambda: residual.Quantizer(base=LFQ, shrink=(0.5,) * 3), ["shrink"]),
    (lambda: residual.Quantizer(base=LFQ, shrink=0.0), ["shrink", 0.0]),
    (lambda: grouped.Quantizer(base=LFQ, groups=0), ["groups", 0]),
    (lambda: grouped.Quantizer(base=CONTINUOUS), ["grouped", "continuous"]),
    (
      lambda: grouped.Quantizer(base=LFQ).apply({}, jnp.zeros((2, 9))),
      ["grouped", 9, 8],
    ),
    (lambda: additive.Quantizer(base=LFQ, sweeps=-1), ["sweeps", -1]),
    (
      lambda: multiscale.Quantizer(base=LFQ, scales=((2,), (1,))),
      ["scales", "((2,), (1,))"],
    ),
    (lambda: multiscale.Quantizer(base=LFQ, scales=()), ["scales", "()"]),
    (
      lambda: multiscale.Quantizer(base=LFQ, scales=((2,),), resize="area"),
      ["resize", "area"],
    ),
    (
      lambda: multiscale.Quantizer(base=LFQ, scales=((2,),)).apply(
        {}, jnp.zeros((1, 3, 4))
      ),
      ["scales", "(3,)", "(2,)"],
    ),
    (lambda: mixed.Quantizer(base=LFQ, width=3), ["width", 3, 4]),
    (lambda: mixed.Quantizer(base=LFQ, share=1.5), ["share", 1.5]),
    (
      lambda: residual.Quantizer(base=LFQ, depth=2).lookup(
        np.zeros((1, 3), np.int32)
      ),
      ["(1, 3)", 2],
    ),
  ],
)
def test_wrong_arguments_name_value_and_cure(call, named):
  with error_names(ValueError, *named):
    call()


def test_shared_picks_are_those_of_the_last_use():
  outs = [
    Quantized(0, 0, {}, {"sum": jnp.ones(2) * i, "pick_x": jnp.ones(2) * i})
    for i in (1.0, 2.0, 3.0)
  ]
  stats = nested.join_stats("levels", outs, True)["levels_0"]
  assert stats["sum"].tolist() == [6, 6] and stats["pick_x"].tolist() == [3, 3]
