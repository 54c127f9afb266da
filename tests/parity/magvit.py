"""Writes tests/golden/magvit/nets.npz from the official MAGVIT modules.

  git clone https://github.com/google-research/magvit /tmp/magvit
  python tests/parity/magvit.py /tmp/magvit

Read at commit 05e8cfd. The weights are drawn in the order of our own trees
(`drawn`), given to the official modules under their names, and what those
return is kept; tests/test_cnn3d.py and tests/test_stylegan.py draw the same.
"""

import functools
import pathlib
import sys

import jax
import ml_collections
import numpy as np

from magvit_jax.discriminators import stylegan2d, stylegan3d
from magvit_jax.tokenizers import cnn3d

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "magvit" / "nets.npz"
NET = dict(
  latent_dim=4,
  width=32,
  multipliers=(1, 2),
  blocks=1,
  strides=((2, 2, 2),),
)
CRITIC = dict(width=4, multipliers=(1, 2))
VIDEO = (2, 4, 8, 8, 3)
ODD = (2, 5, 6, 6, 3)  # frames that the discriminators do not halve evenly


def clip(shape):
  """A video of noise in [-1,1]."""
  return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def drawn(init, *args):
  """Params of the shapes that init gives, in the order of their paths."""
  rng = np.random.default_rng(0)
  tree = jax.eval_shape(init, jax.random.key(0), *args)["params"]
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: rng.normal(
      float(path[-1].key == "scale"), 0.1, leaf.shape
    ).astype(np.float32),
    tree,
  )


def numbered(parts):
  """Layers by kind in the order of use -> {'Conv_0': …, 'ResBlock_0': …}."""
  counts, out = {}, {}
  for kind, params in parts:
    index = counts.get(kind, 0)
    counts[kind] = index + 1
    out[f"{kind}_{index}"] = params
  return out


def block(params):
  """A residual block of the tokenizer."""
  order = ["ClipGroupNorm_0", "Conv_0", "ClipGroupNorm_1", "Conv_1", "shortcut"]
  kinds = ["GroupNorm", "Conv", "GroupNorm", "Conv", "Conv"]
  pairs = zip(kinds, order, strict=True)
  return numbered([(k, params[name]) for k, name in pairs if name in params])


def coder(params, order):
  """An encoder or decoder whose layers are used in `order`."""
  head = params["head"]
  if head["kernel"].ndim == 2:
    head = {**head, "kernel": head["kernel"][None, None, None]}
  parts = [("Conv", params["stem"])]
  for name in order:
    kind = "ResBlock" if "block" in name else "Conv"
    params_of = block(params[name]) if "block" in name else params[name]
    parts.append((kind, params_of))
  parts += [("GroupNorm", params["ClipGroupNorm_0"]), ("Conv", head)]
  return {"params": numbered(parts)}


def critic(params, flat):
  """A discriminator; `flat` drops the first axis of 1x3x3 kernels."""
  params = params["net"]

  def one(layer):
    kernel = layer["kernel"]
    return {**layer, "kernel": kernel[0] if flat else kernel}

  parts = [("Conv", one(params["stem"]))]
  for i in range(len(CRITIC["multipliers"])):
    inner = params[f"block{i}"]
    order = ("first", "shortcut", "second")
    parts.append(
      ("ResBlock", numbered([("Conv", one(inner[n])) for n in order]))
    )
  parts.append(("Conv", one(params["last"])))
  parts += [("Dense", params["flat"]), ("Dense", params["head"])]
  return {"params": numbered(parts)}


def main():
  sys.path.insert(0, sys.argv[1])
  from videogvt.models import enc_dec_3dcnn
  from videogvt.models import stylegan_discriminator_2d as gan2d
  from videogvt.models import stylegan_discriminator_3d as gan3d

  config = ml_collections.ConfigDict()
  config.image_size = 8
  config.vqvae = dict(
    filters=NET["width"],
    num_enc_res_blocks=NET["blocks"],
    num_dec_res_blocks=NET["blocks"],
    channel_multipliers=NET["multipliers"],
    temporal_downsample=(True,),
    embedding_dim=NET["latent_dim"],
    conv_downsample=False,
    activation_fn="swish",
    norm_type="GN",
  )
  config.discriminator = dict(
    filters=CRITIC["width"],
    channel_multipliers=CRITIC["multipliers"],
    blur_resample=False,
  )
  net, video = cnn3d.Backbone(**NET), clip(VIDEO)
  params = drawn(functools.partial(net.init, method=both), video)
  order = ["level0_block0", "level1_block0", "middle_block0"]
  latents = enc_dec_3dcnn.Encoder(config).apply(
    coder(params["encoder"], order), video
  )
  order = ["middle_block0", "level1_block0", "level1_up", "level0_block0"]
  recon = enc_dec_3dcnn.Decoder(config).apply(
    coder(params["decoder"], order), latents
  )
  out = dict(latents=latents, recon=recon)
  odd = clip(ODD)
  ours = stylegan3d.Discriminator(**CRITIC)
  out["logits3d"] = gan3d.StyleGANDiscriminator(config).apply(
    critic(drawn(ours.init, odd), False), odd
  )
  for pool in ("average", "blur"):
    ours = stylegan2d.Discriminator(**CRITIC, pool=pool)
    config.discriminator.blur_resample = pool == "blur"
    logits = gan2d.StyleGANDiscriminator(config).apply(
      critic(drawn(ours.init, odd), True), odd
    )
    out[f"logits2d_{pool}"] = logits[..., 0]
  GOLDEN.parent.mkdir(exist_ok=True)
  np.savez(GOLDEN, **{k: np.asarray(v, np.float32) for k, v in out.items()})


def both(module, video):
  return module.decode(module.encode(video))


if __name__ == "__main__":
  main()
