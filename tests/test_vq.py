"""VQ and what quantizers with a table share: search, k-means, restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax import optim
from magvit_jax.quantizers import codebook, vq
from magvit_jax.stages import TrainState, tokenizer
from magvit_jax.tokenizers import Tokenizer, causal3d


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def started(module, seed=1):
  return module.init(jax.random.key(seed), jnp.zeros((1, module.dim)))["params"]


@pytest.mark.parametrize("limit", [2**22, 1])
def test_the_nearest_code_is_found_block_by_block(limit, monkeypatch):
  monkeypatch.setattr(codebook, "MAX_SCORES", limit)
  z, table = normal(0, 3, 7, 4), normal(1, 600, 4)
  table = table.at[590].set(table[3])  # of equal ones the first counts
  z = z.at[0, 0].set(table[3])
  far = np.linalg.norm(np.asarray(z)[..., None, :] - np.asarray(table), axis=-1)
  np.testing.assert_array_equal(codebook.nearest(z, table), far.argmin(-1))


def test_sixteen_thousand_codes_never_make_an_n_by_k_array():
  module = vq.Quantizer(size=16384, width=8, learn="gradient")
  z = jax.ShapeDtypeStruct((1280, 16, 8), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), z)

  def loss(params, z):
    out = module.apply(params, z, key=jax.random.key(0))
    return out.codes.sum() + sum(out.aux.values()), out

  jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1), has_aux=True))(
    params, z
  )
  assert largest(jaxpr.jaxpr) <= 1280 * 16 * 256


def largest(jaxpr):
  """Elements of the largest array that a program makes."""
  sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
  for eqn in jaxpr.eqns:
    for sub in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      sub = getattr(sub, "jaxpr", sub)
      if hasattr(sub, "eqns"):
        sizes.append(largest(sub))
  return max(sizes, default=0)


def test_rotation_lands_on_the_code_and_turns_gradients_back():
  z, q, g = normal(0, 50, 6), normal(1, 50, 6), normal(2, 50, 6)
  value, pull = jax.vjp(lambda z: codebook.rotate(z, q), z)
  np.testing.assert_allclose(value, q, rtol=1e-4, atol=1e-5)
  back = pull(g)[0]
  stretch = np.linalg.norm(q, axis=-1) / np.linalg.norm(z, axis=-1)
  lengths = np.linalg.norm(back, axis=-1) / np.linalg.norm(g, axis=-1)
  np.testing.assert_allclose(lengths, stretch, rtol=1e-4)
  # the angle of gradient and code is kept for gradient and latent
  cosine = lambda a, b: jnp.sum(codebook.unit(a) * codebook.unit(b), -1)  # noqa: E731
  np.testing.assert_allclose(cosine(back, z), cosine(g, q), atol=1e-5)


def test_orthogonal_is_the_mean_squared_cosine_of_all_pairs():
  table = normal(0, 9, 4)
  rows = np.asarray(table) / np.linalg.norm(table, axis=-1, keepdims=True)
  want = np.mean((rows @ rows.T) ** 2) - 1 / 9
  assert float(codebook.orthogonal(table)) == pytest.approx(want, abs=1e-6)
  assert abs(codebook.orthogonal(3 * jnp.eye(4))) < 1e-6


@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_the_first_refresh_is_kmeans_and_only_the_first(learn):
  module = vq.Quantizer(size=6, width=2, learn=learn, restart=0.0)
  centers = 5 * np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [0, 2]])
  z = jnp.asarray(np.repeat(centers, 30, 0)) + 0.05 * normal(0, 180, 2)
  params = started(module)
  run = jax.jit(lambda p, z, key: module.apply({"params": p}, z, key=key))
  name = "embedding" if learn == "gradient" else "buffer_embedding"
  stats = run(params, z, jax.random.key(0)).stats
  new = module.refresh(params, stats, jax.random.key(1))
  error = lambda p: float(jnp.mean(jnp.square(run(p, z, None).codes - z)))  # noqa: E731
  assert error(new) < 0.2 * error(params)
  assert new["buffer_started"] == 1
  again = module.refresh(new, stats, jax.random.key(2))
  if learn == "gradient":
    np.testing.assert_array_equal(again[name], new[name])
  else:
    assert 0 < np.abs(again[name] - new[name]).max() < 1


def test_dead_codes_become_different_latents_and_live_ones_stay():
  module = vq.Quantizer(size=8, width=2, kmeans=0, restart=0.5, decay=0.0)
  params = started(module)
  live = jnp.asarray([[9.0, 9.0], [-9.0, 9.0]])
  params["buffer_embedding"] = params["buffer_embedding"].at[:2].set(live)
  z = jnp.concatenate([jnp.repeat(live, 10, 0), live * 1.1])
  stats = module.apply({"params": params}, z, key=jax.random.key(0)).stats
  new = module.refresh(params, stats, jax.random.key(1))
  table = np.asarray(new["buffer_embedding"])
  np.testing.assert_allclose(table[:2], live * (10 + 1.1) / 11, rtol=1e-4)
  assert all((row == np.asarray(z)).all(-1).any() for row in table[2:])
  np.testing.assert_allclose(new["buffer_count"][:2], 11)
  limit = float(new["buffer_count"][2])
  assert limit == pytest.approx(0.5 * 22 / 8)
  np.testing.assert_allclose(
    new["buffer_sum"][2:], table[2:] * limit, rtol=1e-6
  )


def test_more_dead_codes_than_latents_move_only_as_many():
  dead = jnp.asarray([True] * 6 + [False] * 2)
  ids, use = codebook.place(jax.random.key(0), dead, 3)
  assert use.all() and len(set(ids.tolist())) == 3 and max(ids) < 6
  ids, use = codebook.place(jax.random.key(0), dead, 20)
  assert sorted(ids.tolist()) == list(range(8)) and use.sum() == 6
  table = codebook.put(jnp.zeros((8, 1)), ids, use, jnp.ones((8, 1)))
  np.testing.assert_array_equal(table[:, 0], dead.astype(np.float32))


def test_without_restarts_far_codes_die_and_with_them_all_are_used():
  z = 3 + normal(0, 400, 4)
  used = {}
  for restart in (0.0, 0.1):
    module = vq.Quantizer(
      size=32, width=4, kmeans=0, restart=restart, decay=0.8
    )
    params = started(module)

    @jax.jit
    def step(params, key, module=module):
      out = module.apply({"params": params}, z, key=key)
      return module.refresh(params, out.stats, key), out.ids

    for i in range(20):
      params, ids = step(params, jax.random.key(i))
    used[restart] = len(np.unique(ids))
  assert used[0.0] < 16 and used[0.1] > 28, used


def test_cosine_codes_have_length_one_and_ignore_the_latents_length():
  module = vq.Quantizer(size=8, width=3, cosine=True, kmeans=0)
  params, z = started(module), normal(0, 20, 3)
  out = module.apply({"params": params}, z)
  np.testing.assert_allclose(np.linalg.norm(out.codes, axis=-1), 1, rtol=1e-6)
  np.testing.assert_array_equal(
    out.ids, module.apply({"params": params}, 7 * z).ids
  )


def test_the_stage_moves_the_codes_and_its_average_copies_them():
  module = Tokenizer(causal3d.Backbone(latent_dim=4), vq.Quantizer(**vq.TINY))
  adam = dict(lr=1e-3, weight_decay=0.1)
  ema = dict(decay=0.99, warmup=True)
  recipe = tokenizer.Recipe(
    module, tokenizer.modalities(None), {}, {}, optim.make(2, **adam), ema
  )
  own, z = started(module.quantizer), normal(0, 64, 4)
  params = {"gen": {"quantizer": own}}
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt={"gen": recipe.tx.init(params["gen"])},
    ema=params["gen"],
    frozen={},
    extra={},
  )
  key = jax.random.key(0)
  out = module.quantizer.apply({"params": own}, z, key=key)
  grads = jax.tree.map(jnp.ones_like, params)
  new = tokenizer._follow_generator(
    recipe, tokenizer._apply_gradients(recipe, state, grads), out.stats, key
  )
  want = module.quantizer.refresh(own, out.stats, key)
  assert want["buffer_started"] == 1
  assert (want["buffer_embedding"] != own["buffer_embedding"]).any()
  for tree in (new.params["gen"], new.ema):
    jax.tree.map(np.testing.assert_array_equal, tree["quantizer"], want)


def test_the_entropy_of_distances_is_a_loss_if_a_temperature_asks_for_it():
  plain = vq.Quantizer(**vq.TINY, learn="gradient")
  sure = plain.clone(temperature=0.1)
  params, z = started(plain), normal(0, 30, 4)
  aux, more = (m.apply({"params": params}, z).aux for m in (plain, sure))
  assert "loss_entropy" not in aux and aux.items() <= more.items()
  far = jnp.sum(jnp.square(z[:, None] - params["embedding"]), -1)
  p = np.asarray(jax.nn.softmax(-far / 0.1), np.float64)
  token, batch = (-np.mean(np.sum(q * np.log(q), -1)) for q in (p, p.mean(0)))
  got = [more[f"entropy_{k}"] for k in ("token", "batch")]
  np.testing.assert_allclose(got, [token, batch], rtol=1e-4)
  assert float(more["loss_entropy"]) == pytest.approx(token - batch, rel=1e-4)


@pytest.mark.parametrize(
  "args, named",
  [
    (dict(size=1), ["size", 1]),
    (dict(width=0), ["width", 0]),
    (dict(learn="both"), ["learn", "both"]),
    (dict(gradient="turn"), ["gradient", "turn"]),
    (dict(decay=1.0), ["decay", 1.0]),
    (dict(restart=-0.1), ["restart", -0.1]),
    (dict(temperature=-1.0), ["temperature", -1.0]),
    (dict(orthogonal=True), ["orthogonal=True", "gradient"]),
  ],
)
def test_wrong_arguments_name_value_and_cure(args, named):
  with error_names(ValueError, *named):
    vq.Quantizer(**args)
