"""Writes tests/golden/magvit/tokenizer.npz from the official VQVAE module.

  git clone https://github.com/google-research/magvit /tmp/magvit
  python tests/parity/magvit_tokenizer.py /tmp/magvit

Read at commit 05e8cfd. Its losses import a module that needs TensorFlow and
that the tokenizer does not use: an empty one takes its place. The weights are
drawn from the names and shapes of the official tree, as are those of
tests/test_convert_magvit.py. `full` are the trees of the published configs.
"""

import json
import pathlib
import sys
import types

import jax
import numpy as np

GOLDEN = (
  pathlib.Path(__file__).parents[1] / "golden" / "magvit" / "tokenizer.npz"
)
VIDEO = (2, 4, 16, 16, 3)
TINY = dict(
  filters=32,
  num_enc_res_blocks=1,
  num_dec_res_blocks=1,
  channel_multipliers=(1, 2, 2),
  temporal_downsample=(True, False),
  embedding_dim=8,
  codebook_size=32,
)
FULL = {"ucf101_B": "B", "ucf101_L": "L", "bair_B": "B", "bair_L": "L"}


def clip(shape):
  """A video of noise in [0,1], the range of the official code."""
  return np.random.default_rng(1).uniform(0, 1, shape).astype(np.float32)


def drawn(shapes):
  """Arrays by flat official names: kernels that keep the activations."""
  rng = np.random.default_rng(0)
  out = {}
  for name, shape in sorted(shapes.items()):
    scale = 0.1 if len(shape) == 1 else np.prod(shape[:-1]) ** -0.5
    scale = 1.0 if name.endswith("codebook") else scale
    mean = float(name.endswith("scale"))
    out[name] = rng.normal(mean, scale, shape).astype(np.float32)
  return out


def nested(arrays):
  """{'a/b': x} -> {'a': {'b': x}}."""
  tree = {}
  for name, array in arrays.items():
    *groups, last = name.split("/")
    inner = tree
    for group in groups:
      inner = inner.setdefault(group, {})
    inner[last] = array
  return tree


def main():
  sys.path.insert(0, sys.argv[1])
  name = "videogvt.train_lib.pretrained_model_utils"
  sys.modules[name] = types.ModuleType(name)
  import videogvt.train_lib as package

  package.pretrained_model_utils = sys.modules[name]
  from videogvt.configs import vqgan3d_bair_config, vqgan3d_ucf101_config
  from videogvt.models import vqvae

  def shapes(config, size):
    video = jax.ShapeDtypeStruct((1, 16, size, size, 3), np.float32)
    module = vqvae.VQVAE(config)
    tree = jax.eval_shape(module.init, jax.random.key(0), video)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
      jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
      for path, leaf in leaves
    }

  configs = {"ucf101": vqgan3d_ucf101_config, "bair": vqgan3d_bair_config}
  full = {}
  for name, size in FULL.items():
    config = configs[name.partition("_")[0]].get_config(size)
    full[name] = shapes(config, 128 if "ucf101" in name else 64)
  config = vqgan3d_ucf101_config.get_config("B")
  config.vqvae.update(TINY)
  tiny = shapes(config, VIDEO[2])
  module, weights = vqvae.VQVAE(config), {"params": nested(drawn(tiny))}
  apply = jax.jit(module.apply, static_argnames="method")
  ids = apply(weights, clip(VIDEO), method="encode_to_indices")
  recon = apply(weights, ids, method="decode_from_indices")
  latents = module.apply(weights, clip(VIDEO), method=lambda m, x: m.encoder(x))
  np.savez_compressed(
    GOLDEN,
    latents=latents,
    ids=ids,
    recon=recon,
    tiny=json.dumps(tiny),
    full=json.dumps(full),
  )


if __name__ == "__main__":
  main()
