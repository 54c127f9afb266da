"""The decode loop, against an oracle and a written-out reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.decoding import maskgit, sampling, schedules
from magvit_jax.decoding.maskgit import MaskGIT

SIZES = (5, 7)
UNKNOWN = (0, 1, 2, 9, 16)  # per example, of 16 positions


def logits_of(ids, guidance=0.0):
  """Logits that depend on the visible ids, MASK included."""
  del guidance
  rng = np.random.default_rng(0)
  total = jnp.sum(ids, axis=(1, 2), keepdims=True)
  out = []
  for size in SIZES:
    base = rng.normal(size=(1, 16, size)).astype(np.float32) * 2
    out.append(base + jnp.sin(total * (1 + jnp.arange(size))))
  return tuple(out)


def start(key=0):
  rng = np.random.default_rng(key)
  fixed = rng.integers(0, 5, (len(UNKNOWN), 16, 2)).astype(np.int32)
  order = rng.permuted(np.tile(np.arange(16), (len(UNKNOWN), 1)), axis=1)
  unknown = order < np.asarray(UNKNOWN)[:, None]
  # As under COMMIT: some positions hold a hint, the others MASK.
  hinted = rng.random((len(UNKNOWN), 16, 1)) < 0.5
  hint = rng.integers(0, 5, fixed.shape)
  given = np.where(hinted, hint, SIZES).astype(np.int32)
  return maskgit.Start(given, fixed, unknown)


@pytest.fixture(scope="module")
def run():
  return jax.jit(
    lambda start, key, method: maskgit.decode(method, logits_of, start, key),
    static_argnums=2,
  )


METHOD = MaskGIT(steps=5)


def test_counts_follow_the_table_per_example(run):
  _, trace = run(start(), jax.random.key(0), METHOD)
  got = trace.unknown.sum(-1).T
  for n, row in zip(UNKNOWN, got, strict=True):
    np.testing.assert_array_equal(row, schedules.counts("cosine", n, 5))


def test_a_token_once_kept_never_changes(run):
  ids, trace = run(start(), jax.random.key(1), METHOD)
  before = np.concatenate([start().unknown[None], trace.unknown[:-1]])
  assert (np.asarray(trace.unknown) <= before).all()
  for step in range(METHOD.steps):
    kept = ~np.asarray(trace.unknown[step])
    np.testing.assert_array_equal(ids[kept], trace.ids[step][kept])
  fixed = ~start().unknown
  np.testing.assert_array_equal(ids[fixed], start().fixed[fixed])
  moved = (trace.ids[0] != trace.ids[-1]).any(-1)
  assert moved.any()  # tokens that were masked again do change


def test_the_same_key_gives_the_same_sample_and_compiles_once(run):
  first, _ = run(start(), jax.random.key(2), METHOD)
  again, _ = run(start(), jax.random.key(2), METHOD)
  other, _ = run(start(1), jax.random.key(3), METHOD)
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()
  assert (first < np.asarray(SIZES)).all() and (first >= 0).all()
  assert run._cache_size() == 1


def test_greedy_decoding_is_the_reference_step_by_step(run):
  method = dataclasses.replace(METHOD, choice_temperature=0.0, top_k=1)
  begin = start()
  _, trace = run(begin, jax.random.key(0), method)
  ids, unknown = begin.fixed.copy(), begin.unknown.copy()
  for step in range(method.steps):
    seen = np.where(unknown[..., None], begin.given, ids)
    logits = logits_of(jnp.asarray(seen))
    sure = np.zeros(unknown.shape)
    for i, factor in enumerate(logits):
      p = np.asarray(jax.nn.softmax(factor))
      ids[..., i] = np.where(unknown, p.argmax(-1), ids[..., i])
      sure += np.log(p.max(-1))
    for b, n in enumerate(UNKNOWN):
      row = np.where(unknown[b], sure[b], np.inf)
      unknown[b] = False
      unknown[b, np.argsort(row)[: schedules.counts("cosine", n, 5)[step]]] = 1
    np.testing.assert_array_equal(trace.ids[step], ids)
    np.testing.assert_array_equal(trace.unknown[step], unknown)


PROBS = np.asarray([0.55, 0.25, 0.15, 0.05], np.float32)


@pytest.mark.parametrize("heat,biased", [(1e6, False), (0.0, True)])
def test_marginals_of_independent_positions(heat, biased):
  """Random choice keeps them; choice by confidence favours the mode."""
  shape = (128, 64, 1)
  begin = maskgit.Start(
    given=jnp.full(shape, 4),
    fixed=jnp.zeros(shape, jnp.int32),
    unknown=jnp.ones(shape[:2], bool),
  )
  method = MaskGIT(steps=8, choice_temperature=heat)

  def oracle(ids, guidance):
    del guidance
    return (jnp.broadcast_to(jnp.log(PROBS), (*ids.shape[:2], 4)),)

  ids, _ = jax.jit(lambda k: maskgit.decode(method, oracle, begin, k))(
    jax.random.key(0)
  )
  share = np.bincount(np.asarray(ids).ravel(), minlength=4) / ids.size
  if biased:
    assert share[0] > 0.7 and share[3] < 0.02
  else:
    np.testing.assert_allclose(share, PROBS, atol=5 * 0.5 / np.sqrt(ids.size))


def test_noise_on_the_choice_ends_with_the_last_steps():
  """With one step there is no noise left, with two there is, in the first."""
  begin = start()
  method = MaskGIT(steps=2, choice_temperature=1e6, top_k=1)
  orders = [
    np.asarray(
      maskgit.decode(method, logits_of, begin, jax.random.key(k))[1].unknown[0]
    )
    for k in (0, 1)
  ]
  assert (orders[0] != orders[1]).any()


def test_each_step_has_the_guidance_of_its_place():
  """One position of two ids, whose logits are the guidance of the step."""
  begin = maskgit.Start(
    given=jnp.full((1, 8, 1), 2),
    fixed=jnp.zeros((1, 8, 1), jnp.int32),
    unknown=jnp.ones((1, 8), bool),
  )

  def tell(ids, guidance):
    # Id 1 is certain where the guidance is above 5, id 0 where it is below.
    sure = 100 * (guidance - 5.0) * jnp.asarray([-1.0, 1.0])
    return (jnp.broadcast_to(sure, (*ids.shape[:2], 2)),)

  def ids_of(power):
    method = MaskGIT(
      steps=4, guidance=9.0, guidance_power=power, choice_temperature=0.0
    )
    _, trace = maskgit.decode(method, tell, begin, jax.random.key(0))
    return trace.ids[:, 0, 0, 0]  # of equal ones the first is decided last

  assert ids_of(0.0).tolist() == [1, 1, 1, 1]
  assert ids_of(1.0).tolist() == [0, 0, 1, 1]
  assert ids_of(4.0).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("jitted", [False, True])
def test_filters_keep_what_they_say(jitted):
  wrap = jax.jit if jitted else lambda f: f
  logits = jnp.log(jnp.asarray([[0.05, 0.5, 0.15, 0.3], [0.25] * 4]))
  kept = wrap(sampling.TopK(2))(logits) > -jnp.inf
  assert kept[0].tolist() == [False, True, False, True]
  for p, want in [(0.5, [0, 1, 0, 0]), (0.6, [0, 1, 0, 1]), (1.0, [1] * 4)]:
    kept = wrap(sampling.TopP(p))(logits) > -jnp.inf
    assert kept[0].tolist() == [bool(x) for x in want], p
  np.testing.assert_allclose(
    wrap(sampling.Temperature(0.5))(logits), 2 * logits
  )


def test_ids_are_drawn_from_the_filtered_logits_only():
  logits = jnp.tile(jnp.log(jnp.asarray(PROBS)), (500, 1))
  chain = sampling.filters(temperature=2.0, top_k=3, top_p=0.7)
  ids = sampling.draw(jax.random.key(0), (logits, logits[:, :3]), chain)
  assert ids.shape == (500, 2) and ids.dtype == jnp.int32
  # top-3 at temperature 2 is .43 .29 .22 of 1: the first two reach 0.7
  assert set(np.unique(ids[:, 0])) == {0, 1}
  assert sampling.filters() == ()


def test_log_prob_sums_over_factors_and_guidance_extrapolates():
  own = (jnp.asarray([[0.0, 1.0]]), jnp.asarray([[2.0, 0.0, 1.0]]))
  free = (jnp.asarray([[1.0, 1.0]]), jnp.asarray([[0.0, 0.0, 1.0]]))
  got = sampling.log_prob(own, jnp.asarray([[1, 2]]))
  want = 1 - np.log(1 + np.e) + 1 - np.log(np.e**2 + 1 + np.e)
  np.testing.assert_allclose(got, [want], rtol=1e-6)
  guided = sampling.guide(own, free, 2.0)
  np.testing.assert_allclose(guided[0], [[-2.0, 1.0]])
  np.testing.assert_allclose(guided[1], [[6.0, 0.0, 1.0]])


@pytest.mark.parametrize(
  "arg,named",
  [
    (dict(steps=0), ["steps", 0]),
    (dict(schedule="cos"), ["schedule", "cos", "cosine"]),
    (dict(temperature=0.0), ["temperature", 0.0]),
    (dict(top_p=0.0), ["top_p", 0.0]),
    (dict(top_k=-1), ["top_k", -1]),
    (dict(guidance=-1.0), ["guidance", -1.0]),
    (dict(guidance_power=-1.0), ["guidance_power", -1.0]),
    (dict(choice_temperature=float("nan")), ["choice_temperature", "nan"]),
  ],
)
def test_a_method_that_cannot_be_is_refused(arg, named):
  with error_names(ValueError, *named):
    MaskGIT(**arg)
