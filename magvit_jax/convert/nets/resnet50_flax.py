"""ResNet-50 in the Flax layout of MaskGIT and MAGVIT (train_lib/resnet_v1.py).

Their code reads a pickled .npy, whose weights were never published, so there is
no public file. --input is an .npz of the same arrays by flat names,
'params/stage1/block1/conv1/kernel' and 'batch_stats/stage1/block1/bn1/mean':
what flax.traverse_util.flatten_dict(…, sep='/') gives.
"""

import re

import numpy as np

from magvit_jax.convert import renaming
from magvit_jax.convert.nets import resnet50
from magvit_jax.nets import resnet50 as net
from magvit_jax.types import PyTree

FILES = {}
NOTES = {"net": "resnet50", "origin": "flax"}
USE = (
  "a config whose stage.perceptual is dict(name='resnet50', origin='flax', "
  "weights='{out}', fingerprint='', frames=1)"
)
NORM = ("params/{}/scale", "params/{}/bias")
NORM += ("batch_stats/{}/mean", "batch_stats/{}/var")


def layers(state: dict[str, np.ndarray]) -> dict[str, tuple[str, str]]:
  """Our name of each convolution to its (convolution, batch norm)."""
  found = {"net/stem": ("init_conv", "init_bn")}
  for name in state:
    block = re.fullmatch(
      r"params/(stage\d+)/(block\d+)/(conv\d|proj_conv)/kernel", name
    )
    if block:
      stage, number, conv = block.groups()
      ours = "shortcut" if conv == "proj_conv" else conv
      theirs = f"{stage}/{number}/"
      norm = theirs + conv.replace("conv", "bn")
      found[f"net/{stage}_{number}/{ours}"] = theirs + conv, norm
  return found


def convert(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of the flat file -> weights of the loss 'resnet50'."""
  pairs = layers(state)
  used = {"params/head/kernel", "params/head/bias"}
  for conv, norm in pairs.values():
    used |= {f"params/{conv}/kernel", *(part.format(norm) for part in NORM)}
  extra = sorted(state.keys() - used)
  renaming.check_names(sorted(used - state.keys()), extra)
  out = {f"net/head/{k}": state[f"params/head/{k}"] for k in ("kernel", "bias")}
  for ours, (conv, norm) in pairs.items():
    parts = (state[part.format(norm)] for part in NORM)
    kernel = state[f"params/{conv}/kernel"]
    out[f"{ours}/kernel"], out[f"{ours}/bias"] = net.fold(kernel, *parts)
  return out


def shapes() -> PyTree:
  """Shapes of the weights of the loss."""
  return resnet50.shapes()
