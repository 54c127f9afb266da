"""With the batch over 8 devices, terms are those of the whole batch."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.losses import adversarial, entropy
from magvit_jax.quantizers import bsq, fsq, lfq

QUANTIZERS = {
  "lfq": lfq.Quantizer(bits=6, temperature=1.0),
  "bsq": bsq.Quantizer(bits=6, temperature=0.2, groups=2),
  "fsq": fsq.Quantizer(levels=(4, 3, 5), temperature=0.1),
}


def terms(z):
  """Every term and its gradient; the examples of a batch differ much."""
  out = {}
  for name, module in QUANTIZERS.items():
    part = z[..., : module.dim]
    out[name] = module.apply({}, part).aux
    loss = lambda z, m=module: m.apply({}, z).aux["loss_entropy"]  # noqa: E731
    out[f"grad_{name}"] = jax.grad(loss)(part)
  rows = z.reshape(-1, 6)
  table = jnp.sin(jnp.arange(60.0)).reshape(10, 6)
  out["r1"] = adversarial.r1(jnp.sin, z)
  out["table"] = entropy.table_entropies(rows, table, 0.5, chunk=12)
  return out


def batch():
  z = np.random.default_rng(0).normal(size=(8, 2, 3, 6))
  return (z + 2 * np.arange(8)[:, None, None, None] - 7).astype(np.float32)


def main():
  """Compares both in this process, which has 8 devices."""
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.NamedSharding(mesh, jax.P("data"))
  spread = jax.device_put(batch(), spec)
  assert len(spread.addressable_shards) == 8
  one, many = jax.jit(terms)(batch()), jax.jit(terms)(spread)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    one,
    many,
  )
  # R1 is a mean over examples, which differ.
  alone = adversarial.r1(jnp.sin, batch()[:1])[1]
  assert abs(alone - one["r1"][1]) > 0.1
  # The mean of the devices' own batch entropies would be another number.
  alone = jax.jit(QUANTIZERS["lfq"].apply)({}, batch()[:1]).aux
  assert abs(alone["entropy_batch"] - one["lfq"]["entropy_batch"]) > 0.5
  print("equal")


def test_terms_over_eight_devices_equal_those_of_one():
  env = os.environ | {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
  }
  run = subprocess.run(
    [sys.executable, __file__], env=env, capture_output=True, text=True
  )
  assert run.stdout.strip().endswith("equal"), run.stderr[-2000:]


if __name__ == "__main__":
  main()
