"""Against vector-quantize-pytorch, by files that tests/parity/ generates.

Ids are equal, codes and terms agree to 1e-5, gradients to 1e-4.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit_jax.quantizers import bsq, fsq, grouped, lfq, multiscale, residual

GOLDEN = pathlib.Path(__file__).parent / "golden" / "quantizers"
BITS, LEVELS = 9, (7, 6, 5)
CLIPPED = dict(name="fsq", levels=LEVELS, form="clipped")
SCALES = dict(
  base=CLIPPED,
  shrink=tuple(1 / n for n in LEVELS),
  clamp=tuple(1 + 1 / (n - 1) for n in LEVELS),
)


def golden(name):
  with np.load(GOLDEN / f"{name}.npz") as file:
    return dict(file)


def close(got, want, tolerance):
  scale = float(np.abs(want).max())
  np.testing.assert_allclose(got, want, atol=tolerance * scale)


def check(out, g):
  np.testing.assert_array_equal(
    np.asarray(out.ids).reshape(g["ids"].shape), g["ids"]
  )
  close(out.codes, g["codes"], 1e-5)


@pytest.mark.parametrize("name", ["lfq", "bsq"])
def test_signs_with_every_term_and_its_gradient(name):
  """The peer's inverse temperature 0.8 is our tau 1.25, warm enough that its
  clamp of probabilities at 1e-5 does not show. In bsq its mean square is our
  sum of squares over BITS, and our term has tau in front.
  """
  g = golden(name)
  args = dict(bits=BITS, temperature=1.25, groups=1)
  quantizer = {"lfq": lfq, "bsq": bsq}[name].Quantizer(**args)

  @jax.jit
  def all_of(z):
    out = quantizer.apply({}, z)
    grads = [
      jax.grad(f)(z)
      for f in (
        lambda z: jnp.sum(g["cotangent"] * quantizer.apply({}, z).codes),
        lambda z: quantizer.apply({}, z).aux["loss_entropy"],
        lambda z: quantizer.apply({}, z).aux["loss_commitment"],
      )
    ]
    return out, grads

  out, (grad, entropy_grad, commitment_grad) = all_of(g["z"])
  check(out, g)
  close(grad, g["grad"], 1e-4)
  tau, per = (1, 1) if name == "lfq" else (1.25, BITS)
  close(out.aux["loss_commitment"] / per, g["commitment"], 1e-5)
  close(commitment_grad / per, g["commitment_grad"], 1e-4)
  close(out.aux["entropy_token"], g["token"], 1e-5)
  close(out.aux["entropy_batch"], g["batch"], 1e-5)
  close(entropy_grad / tau, g["entropy_grad"], 1e-4)


@pytest.mark.parametrize("form", ["tanh", "symmetric", "clipped"])
def test_forms_of_fsq(form):
  g = golden(f"fsq_{form}")
  quantizer = fsq.Quantizer(levels=LEVELS, form=form)

  @jax.jit
  def both(z):
    loss = lambda z: jnp.sum(g["cotangent"] * quantizer.apply({}, z).codes)  # noqa: E731
    return quantizer.apply({}, z), jax.grad(loss)(z)

  out, grad = both(g["z"])
  check(out, g)
  close(grad, g["grad"], 1e-4)


def grouped_residual_fsq():
  base = residual.Quantizer(depth=2, **SCALES)
  return grouped.Quantizer(base=base, groups=2)


@pytest.mark.parametrize(
  "name, build",
  [
    (
      "residual_lfq",
      lambda: residual.Quantizer(
        base=dict(name="lfq", bits=BITS), depth=3, shrink=0.5
      ),
    ),
    ("residual_fsq", lambda: residual.Quantizer(depth=3, **SCALES)),
    ("grouped_residual_fsq", grouped_residual_fsq),
  ],
)
def test_residual_and_grouped_ones(name, build):
  g = golden(name)
  check(jax.jit(lambda z: build().apply({}, z))(g["z"]), g)


VQ = dict(name="vq", size=20, width=5)


def with_tables(module, z, tables):
  """The module's own params with the given codebooks."""
  params = jax.jit(module.init)(jax.random.key(0), z)["params"]
  assert len(params) == len(tables)
  return {
    "params": {
      name: {**params[name], "buffer_embedding": table}
      for name, table in zip(sorted(params), tables, strict=True)
    }
  }


def test_residual_codebooks_and_their_commitment():
  g = golden("residual_vq")
  module = residual.Quantizer(base=VQ, depth=3)
  variables = with_tables(module, g["z"], g["tables"])
  out = jax.jit(module.apply)(variables, g["z"])
  check(out, g)
  close(out.aux["loss_commitment"], g["losses"].mean(), 1e-5)


def test_one_codebook_over_four_grids():
  g = golden("multiscale_vq")
  module = multiscale.Quantizer(
    base=VQ, scales=((1, 1, 1), (1, 2, 2), (2, 3, 2), (3, 4, 5))
  )
  variables = with_tables(module, g["z"], [g["table"]])
  check(jax.jit(module.apply)(variables, g["z"]), g)
