"""Writes tests/golden/magvit/losses.npz from the official MAGVIT losses.

  git clone https://github.com/google-research/magvit /tmp/magvit
  python tests/parity/magvit_losses.py /tmp/magvit

Read at commit 05e8cfd. Its losses import a module that needs TensorFlow and
that none of these functions reads: an empty one takes its place. The official
entropy of the mean adds 1e-5 inside its logarithm, which is 1e-5 nats per code.
"""

import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "magvit" / "losses.npz"
TAU = 0.01  # of MAGVIT's entropy
AVERAGES = (0.9, -0.4)  # of the logits of real clips and of fake ones


def inputs():
  """Latents, a codebook, logits, clips and the weights of a discriminator."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  return {
    "latents": 0.1 * draw(60, 4),
    "codes": 0.1 * draw(16, 4),
    "real": 1.5 * draw(5, 3),
    "fake": 1.5 * draw(5, 3) + 0.5,
    "clips": rng.uniform(-1, 1, (3, 2, 4, 4, 3)).astype(np.float32),
    "inner": 0.2 * draw(96, 8),
    "outer": draw(8, 1),
  }


def discriminator(x, clips):
  """Logits [b 1] of clips [b 2 4 4 3]."""
  return jnp.tanh(clips.reshape(len(clips), -1) @ x["inner"]) @ x["outer"]


class Net:
  """The discriminator with the methods of a linen module."""

  def apply(self, variables, clips, mutable):
    del mutable
    return discriminator(variables, clips)


def main():
  sys.path.insert(0, sys.argv[1])
  name = "videogvt.train_lib.pretrained_model_utils"
  sys.modules[name] = types.ModuleType(name)
  import videogvt.train_lib as package

  package.pretrained_model_utils = sys.modules[name]
  from videogvt.train_lib import losses

  x = inputs()

  def entropy(z, codes):
    far = losses.squared_euclidean_distance(z, codes)
    return losses.entropy_loss(-far, temperature=TAU)

  grads = jax.grad(entropy, (0, 1))(x["latents"], x["codes"])
  pair = dict(real_logit=x["real"], fake_logit=x["fake"])
  means = [jnp.mean(x[k]) for k in ("real", "fake")]
  out = dict(
    entropy=entropy(x["latents"], x["codes"]),
    entropy_at_latents=grads[0],
    entropy_at_codes=grads[1],
    r1=losses.r1_gradient_penalty(lambda train: Net(), x, x["clips"])[1],
    lecam=losses.lecam_reg(*means, *map(jnp.float32, AVERAGES)),
  )
  for name, kind in (("non_saturating", "non-saturating"), ("hinge",) * 2):
    out[f"d_{name}"] = losses.discriminator_loss(**pair, loss_type=kind)
    fake = dict(fake_logit=x["fake"])
    out[f"g_{name}"] = losses.generator_loss(**fake, loss_type=kind)
  np.savez(GOLDEN, **{k: np.asarray(v, np.float32) for k, v in out.items()})


if __name__ == "__main__":
  main()
