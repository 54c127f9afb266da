"""vq, simvq, gumbel, ibq against torch: ids equal, values 1e-5, gradients 1e-4.

The files come from vector-quantize-pytorch; tests/parity/generate.py remakes
them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax.quantizers import codebook, gumbel, ibq, simvq, vq

GOLDEN = pathlib.Path(__file__).parent / "golden" / "quantizers"
VALUE = dict(rtol=1e-5, atol=1e-5)
GRAD = dict(rtol=1e-4, atol=1e-4)


def golden(name):
  with np.load(GOLDEN / f"{name}.npz") as arrays:
    return dict(arrays)


def forward(module, weights):
  """jitted (params, z, cotangent) -> Quantized and the gradients of both."""

  def loss(params, z, cotangent):
    out = module.apply({"params": params}, z)
    terms = sum(weights[name] * out.aux[name] for name in weights)
    return jnp.sum(out.codes * cotangent) + terms, out

  grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

  def run(*args):
    (_, out), grads = grad(*args)
    return out, *grads

  return run


@pytest.mark.parametrize("cosine", [False, True])
def test_three_updates_of_a_moving_average(cosine):
  g = golden("vq_cosine" if cosine else "vq_ema")
  size, width = g["embedding"].shape
  module = vq.Quantizer(
    size=size, width=width, decay=0.8, kmeans=0, restart=0.0, cosine=cosine
  )
  params = dict(
    buffer_embedding=g["embedding"],
    buffer_sum=g["embedding"],
    buffer_count=np.ones(size, np.float32),
  )
  run = forward(module, dict(loss_commitment=1.0))
  for i in range(3):
    out, _, grad = run(params, g["z"][i], g["cotangent"])
    np.testing.assert_array_equal(out.ids[..., 0], g["ids"][i])
    np.testing.assert_allclose(out.codes, g["codes"][i], **VALUE)
    np.testing.assert_allclose(
      out.aux["loss_commitment"], g["loss"][i], **VALUE
    )
    np.testing.assert_allclose(grad, g["grad"][i], **GRAD)
    params = module.refresh(params, out.stats, jax.random.key(0))
  np.testing.assert_allclose(params["buffer_count"], g["count"], **VALUE)
  np.testing.assert_allclose(params["buffer_sum"], g["sum"], **VALUE)
  np.testing.assert_allclose(params["buffer_embedding"], g["last"], **VALUE)


@pytest.mark.parametrize("name", ["vq_straight", "vq_rotation", "vq_projected"])
def test_a_codebook_learnt_by_gradient(name):
  g = golden(name)
  (size, inner), width = g["embedding"].shape, g["z"].shape[-1]
  module = vq.Quantizer(
    size=size,
    width=width,
    code_dim=inner if name == "vq_projected" else 0,
    learn="gradient",
    kmeans=0,
    restart=0.0,
    gradient="straight" if name == "vq_straight" else "rotation",
    orthogonal=True,
  )
  params = dict(embedding=g["embedding"])
  if name == "vq_projected":
    params["to_code"] = dict(kernel=g["in_kernel"], bias=g["in_bias"])
    params["from_code"] = dict(kernel=g["out_kernel"], bias=g["out_bias"])
  # The peer's one squared error pulls both sides.
  weights = dict(loss_commitment=1.0, loss_codebook=1.0, loss_orthogonal=1.0)
  out, grads, grad = forward(module, weights)(params, g["z"], g["cotangent"])
  np.testing.assert_array_equal(out.ids[..., 0], g["ids"])
  np.testing.assert_allclose(out.codes, g["codes"], **VALUE)
  for ours, theirs in [
    (out.aux["loss_commitment"], "commitment"),
    (out.aux["loss_codebook"], "commitment"),
    (out.aux["loss_orthogonal"], "orthogonal"),
  ]:
    np.testing.assert_allclose(ours, g[theirs], **VALUE)
  np.testing.assert_allclose(grad, g["grad"], **GRAD)
  np.testing.assert_allclose(grads["embedding"], g["grad_embedding"], **GRAD)
  if name == "vq_projected":
    for ours, theirs in [("to_code", "in_grad"), ("from_code", "out_grad")]:
      np.testing.assert_allclose(grads[ours]["kernel"], g[theirs], **GRAD)


@pytest.mark.parametrize("gradient", ["straight", "rotation"])
def test_simvq(gradient):
  g = golden(f"simvq_{gradient}")
  size, inner = g["frozen"].shape
  module = simvq.Quantizer(
    size=size, width=g["z"].shape[-1], frozen_dim=inner, gradient=gradient
  )
  params = dict(buffer_codes=g["frozen"], kernel=g["kernel"])
  weights = dict(loss_codebook=1.0, loss_commitment=0.25)
  out, grads, grad = forward(module, weights)(params, g["z"], g["cotangent"])
  np.testing.assert_array_equal(out.ids[..., 0], g["ids"])
  np.testing.assert_allclose(out.codes, g["codes"], **VALUE)
  loss = sum(weights[name] * out.aux[name] for name in weights)
  np.testing.assert_allclose(loss, g["loss"], **VALUE)
  np.testing.assert_allclose(grad, g["grad"], **GRAD)
  np.testing.assert_allclose(grads["kernel"], g["grad_kernel"], **GRAD)
  np.testing.assert_array_equal(grads["buffer_codes"], 0)


def test_gumbel_softmax_on_the_same_noise():
  g = golden("gumbel")

  def loss(z, kernel, table):
    noisy = z @ kernel + g["noise"]
    codes, ids = gumbel.gumbel_softmax(noisy, table, 0.7)
    return jnp.sum(codes * g["cotangent"]), (codes, ids)

  (_, (codes, ids)), grads = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
  )(g["z"], g["kernel"], g["table"])
  np.testing.assert_array_equal(ids, g["ids"])
  np.testing.assert_allclose(codes, g["codes"], **VALUE)
  for ours, theirs in zip(grads, ("", "_kernel", "_table"), strict=True):
    np.testing.assert_allclose(ours, g[f"grad{theirs}"], **GRAD)
  kl = gumbel.kl_to_uniform(jnp.asarray(g["z"] @ g["kernel"]))
  np.testing.assert_allclose(kl, g["kl"], **VALUE)


@pytest.mark.parametrize("limit", [2**22, 200])
def test_ibq_whole_and_in_chunks(limit, monkeypatch):
  monkeypatch.setattr(codebook, "MAX_SCORES", limit)
  g = golden("ibq")
  size, width = g["table"].shape
  module = ibq.Quantizer(size=size, width=width, temperature=0.5)
  weights = dict(
    loss_index=1.0, loss_commitment=1.0, loss_codebook=0.25, loss_entropy=0.05
  )
  params = dict(embedding=g["table"])
  out, grads, grad = forward(module, weights)(params, g["z"], g["cotangent"])
  np.testing.assert_array_equal(out.ids[..., 0], g["ids"])
  np.testing.assert_allclose(out.codes, g["codes"], **VALUE)
  for name in ("index", "commitment", "codebook", "entropy"):
    np.testing.assert_allclose(out.aux[f"loss_{name}"], g[name], **VALUE)
  np.testing.assert_allclose(grad, g["grad"], **GRAD)
  np.testing.assert_allclose(grads["embedding"], g["grad_table"], **GRAD)


def test_kmeans_keeps_a_code_that_no_row_chooses():
  g = golden("kmeans")
  table, count = jax.jit(codebook.kmeans, static_argnums=2)(
    g["rows"], g["start"], 10
  )
  np.testing.assert_array_equal(count, g["count"])
  np.testing.assert_allclose(table, g["table"], **VALUE)
  assert count[-1] == 0 and (table[-1] == 100).all()
