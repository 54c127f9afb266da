"""ibq, simvq, stochastic_vq, gumbel, dual, lexical: what their papers say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.quantizers import (
  codebook,
  dual,
  gumbel,
  ibq,
  lexical,
  simvq,
  stochastic_vq,
)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def unit(x):
  return np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)


def gradient(module, z):
  params = module.init(jax.random.key(1), z)["params"]

  def loss(params):
    out = module.apply({"params": params}, z)
    return jnp.sum(out.codes * normal(5, *z.shape)), out

  grad, out = jax.jit(jax.grad(loss, has_aux=True))(params)
  return params, grad, out


@pytest.mark.parametrize("kind", [ibq, gumbel])
def test_codes_that_no_latent_chose_get_a_gradient(kind):
  _, grad, out = gradient(kind.Quantizer(size=32, width=4), normal(0, 6, 4))
  assert len(np.unique(out.ids)) < 7
  rows = grad["embedding"] if kind is ibq else grad["to_logits"]["kernel"].T
  assert rows.shape == (32, 4) and (np.abs(rows).sum(-1) > 0).all()


def test_one_step_of_simvq_moves_codes_that_no_latent_chose():
  module = simvq.Quantizer(size=32, width=4)
  z = normal(0, 3, 4)
  params = module.init(jax.random.key(1), z)["params"]
  loss = lambda p: module.apply({"params": p}, z).aux["loss_codebook"]  # noqa: E731
  grad = jax.grad(loss)(params)
  assert not grad["buffer_codes"].any()
  moved = params["buffer_codes"] @ grad["kernel"]
  assert (np.abs(moved).sum(-1) > 0).all()


def test_larp_draws_from_the_softmax_of_the_cosines():
  table = codebook.unit(normal(0, 6, 3))
  z = jnp.broadcast_to(codebook.unit(normal(1, 1, 3)), (20000, 3))
  ids = stochastic_vq.draw(jax.random.key(2), z, table, 0.5)
  want = jax.nn.softmax(z[0] @ table.T / 0.5)
  got = np.bincount(ids, minlength=6)
  chi = np.sum((got - 20000 * want) ** 2 / (20000 * want))
  assert chi < 20.5, (got, want)  # 0.1 % of 5 degrees of freedom


def test_the_draw_does_not_depend_on_how_the_codes_are_cut(monkeypatch):
  table, z = codebook.unit(normal(0, 600, 3)), codebook.unit(normal(1, 4000, 3))
  want = np.mean(jax.nn.softmax(z @ table.T / 0.2), axis=0)
  monkeypatch.setattr(codebook, "MAX_SCORES", 1)
  ids = stochastic_vq.draw(jax.random.key(2), z, table, 0.2)
  got = np.bincount(ids, minlength=600) / 4000
  thirds = slice(0, 256), slice(256, 512), slice(512, 600)
  for part in thirds:
    assert abs(got[part].sum() - want[part].sum()) < 0.03


def test_larp_is_the_nearest_code_without_a_key():
  module = stochastic_vq.Quantizer(size=16, width=4, temperature=0.5)
  z = normal(0, 40, 4)
  params = module.init(jax.random.key(1), z)["params"]
  ids = module.apply({"params": params}, z).ids[:, 0]
  cosine = unit(z) @ unit(params["embedding"]).T
  np.testing.assert_array_equal(ids, cosine.argmax(-1))
  drawn = module.apply({"params": params}, z, key=jax.random.key(2)).ids[:, 0]
  assert 0 < np.mean(drawn != ids) < 1


@pytest.mark.parametrize("weight", [0.0, 1.0, 1e6])
def test_the_shared_id_has_the_smallest_sum_of_distances(weight):
  module = dual.Quantizer(size=16, semantic=3, pixel=2, weight=weight)
  z = normal(0, 40, 5)
  params = module.init(jax.random.key(1), z)["params"]
  out = module.apply({"params": params}, z)
  far = [
    np.sum(np.square(unit(part)[:, None] - unit(params[name])), -1)
    for part, name in [
      (z[:, :3], "semantic_codes"),
      (z[:, 3:], "pixel_codes"),
    ]
  ]
  want = (far[0] + weight * far[1]).argmin(-1)
  np.testing.assert_array_equal(out.ids[:, 0], want)
  for part in (out.codes[:, :3], out.codes[:, 3:]):
    np.testing.assert_allclose(np.linalg.norm(part, axis=-1), 1, rtol=1e-6)
  if weight == 1e6:
    np.testing.assert_array_equal(want, far[1].argmin(-1))


def brute_force(z, table, strides):
  """SPAE's definition at each place: z [H W c] -> ids per layer, averages."""
  rows, columns, _ = z.shape
  chosen = {(r, c): [] for r in range(rows) for c in range(columns)}
  layers, averages = [], []
  for stride in strides:
    ids = []
    for r in range(0, rows, stride):
      for c in range(0, columns, stride):
        here = z[r, c] + sum(z[r, c] - table[k] for k in chosen[r, c])
        ids.append(int(np.argmin(np.sum((here - table) ** 2, -1))))
    places = [
      (r, c) for r in range(0, rows, stride) for c in range(0, columns, stride)
    ]
    for place, k in zip(places, ids, strict=True):
      chosen[place].append(k)
    layers.append(ids)
    averages.append(
      {p: np.mean(table[ks], axis=0) for p, ks in chosen.items() if ks}
    )
  return layers, averages


def test_streaming_average_by_its_definition():
  module = lexical.Quantizer(
    size=50, width=3, grid=(4, 6), strides=(4, 2, 1, 1)
  )
  z = normal(0, 2, 4, 6, 3)
  variables = module.init(jax.random.key(1), z)
  out = module.apply(variables, z)
  table = np.asarray(variables["params"]["buffer_codes"])
  for i in range(2):
    layers, averages = brute_force(np.asarray(z[i]), table, (4, 2, 1, 1))
    assert out.ids[i, :, 0].tolist() == sum(layers, [])
    ends = np.cumsum([len(ids) for ids in layers])
    for end, average in zip(ends, averages, strict=True):
      prefix = module.apply(variables, out.ids[:, :end], method=module.lookup)
      assert prefix.shape == z.shape and np.isfinite(prefix).all()
      for (r, c), mean in average.items():
        np.testing.assert_allclose(prefix[i, r, c], mean, atol=1e-6)


def test_a_coarse_code_fills_its_cell():
  module = lexical.Quantizer(size=50, width=3, grid=(4, 4), strides=(2, 1))
  z = normal(0, 1, 4, 4, 3)
  variables = module.init(jax.random.key(1), z)
  lookup = lambda ids: module.apply(variables, ids, method=module.lookup)  # noqa: E731
  coarse = lookup(module.apply(variables, z).ids[:, :4])
  cell = coarse[:, 2:, 2:].reshape(4, 3)
  np.testing.assert_array_equal(cell, jnp.broadcast_to(cell[0], (4, 3)))
  assert (coarse[:, 0, 0] != coarse[:, 2, 2]).any()
  with error_names(ValueError, "lexical", 5, "4, 20"):
    lookup(jnp.zeros((1, 5, 1), jnp.int32))


def test_the_published_pyramid_has_597_ids():
  module = lexical.Quantizer()
  ends = np.cumsum([h * w for h, w in module.layers])
  assert ends.tolist() == [1, 5, 21, 85, 341, 597]
  assert module.ids_shape((2, 5, 16, 16, 256)) == (2, 5, 597, 1)


def test_an_average_gets_nearer_inside_the_hull_and_is_stuck_outside():
  z = normal(0, 300, 1, 1, 8)
  error = {}
  for scale in (1.0, 3.0, 0.3):
    table = scale * normal(1, 1024, 8)
    error[scale] = [
      float(
        jnp.mean(
          jnp.linalg.norm(
            z - lexical.stream_average(z, table, (1,) * passes)[1], axis=-1
          )
        )
      )
      for passes in range(1, 7)
    ]
  for scale in (1.0, 3.0):
    assert (np.diff(error[scale]) < 0).all()
    assert error[scale][-1] < 0.5 * error[scale][0]
  assert error[0.3][-1] > 0.9 * error[0.3][0]


def test_a_table_from_a_file_is_frozen_and_checked(tmp_path):
  path = tmp_path / "words.npy"
  words = 7 * np.asarray(normal(0, 20, 4))
  np.save(path, words)
  args = dict(width=4, grid=(2, 2), strides=(2, 1), path=str(path))
  module = lexical.Quantizer(size=20, **args)
  z = normal(1, 3, 2, 2, 4)
  params, grad, _ = gradient(module, z)
  table = np.asarray(params["buffer_codes"])
  np.testing.assert_allclose(table * np.sqrt(np.mean(words**2)), words, 1e-5)
  assert not grad["buffer_codes"].any()
  with error_names(ValueError, "words.npy", "(20, 4)", "(21, 4)"):
    lexical.Quantizer(size=21, **args)
  path.unlink()  # shapes alone, as for a restore, need no file
  shapes = jax.eval_shape(module.init, jax.random.key(0), z)["params"]
  assert shapes["buffer_codes"].shape == (20, 4)


@pytest.mark.parametrize(
  "kind, args, named",
  [
    (ibq, dict(size=1), ["size", 1, "ibq"]),
    (ibq, dict(temperature=0.0), ["temperature", 0.0, "ibq"]),
    (simvq, dict(gradient="no"), ["gradient", "no", "simvq"]),
    (gumbel, dict(temperature=-1.0), ["temperature", -1.0, "gumbel"]),
    (stochastic_vq, dict(temperature=0.0), ["temperature", 0.0, "cosine=True"]),
    (dual, dict(weight=-1.0), ["weight", -1.0, "dual"]),
    (dual, dict(pixel=0), ["pixel", 0, "dual"]),
    (lexical, dict(strides=(2, 4, 1)), ["strides", "(2, 4, 1)"]),
    (lexical, dict(strides=(4, 2)), ["strides", "(4, 2)"]),
    (lexical, dict(grid=(4,)), ["grid", "(4,)"]),
  ],
)
def test_wrong_arguments_name_value_and_cure(kind, args, named):
  with error_names(ValueError, *named):
    kind.Quantizer(**args)


def test_lexical_latents_of_another_grid_are_an_error():
  module = lexical.Quantizer(**lexical.TINY)
  with error_names(ValueError, "lexical", "(1, 5, 4, 4)", "(4, 5)"):
    module.init(jax.random.key(0), jnp.zeros((1, 5, 4, 4)))
