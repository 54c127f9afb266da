"""Cosmos-Tokenizer's discrete video nets (NVIDIA): DV 4x8x8, 8x8x8, 8x16x16.

Give autoencoder.jit, or encoder.jit and decoder.jit, of the folder of one
model; --model says which, as all three have the same names and shapes. These
files are archives of TorchScript, which hold code: only their tensors are read,
nothing in them runs (convert/torchscript.py). A state_dict that was saved from
them is read too.

The public nets hold convolutions that nothing uses, of steps that neither halve
nor double: they are left out here and written as zeros there. Attention in time
sees `window` latent frames; see tokenizers/cosmos.py.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from magvit_jax import tokenizers, tree_utils
from magvit_jax.convert import renaming
from magvit_jax.convert.public_file import UNKNOWN, PublicFile
from magvit_jax.convert.renaming import TwoWays
from magvit_jax.convert.tokenizers import Model, check_stage
from magvit_jax.tokenizers.cosmos import STILL

HUB = "https://huggingface.co/nvidia/"
FOLDERS = {
  "DV4x8x8": "Cosmos-0.1-Tokenizer-DV4x8x8",
  "DV8x8x8": "Cosmos-0.1-Tokenizer-DV8x8x8",
  "DV8x16x16": "Cosmos-0.1-Tokenizer-DV8x16x16",
  "DV8x16x16_1.0": "Cosmos-1.0-Tokenizer-DV8x16x16",
}
FILES = {
  f"{folder_name}/autoencoder.jit": PublicFile(
    f"{HUB}{folder_name}/resolve/main/autoencoder.jit",
    UNKNOWN,
    f"--model={model}; also as encoder.jit and decoder.jit",
  )
  for model, folder_name in FOLDERS.items()
}
FIXED = {
  "backbone": dict(name="cosmos"),
  "quantizer": dict(name="fsq", form="tanh", gain=1.0, factors=1),
}
# Tables that the modules make themselves.
BUFFERS = ("encoder.patcher3d.", "decoder.unpatcher3d.", "quantizer.")
BUFFERS += ("inv_quant.",)

SMALL = ((1, 2, 2), STILL)
STEPS = {
  "DV4x8x8": (SMALL, SMALL),
  "DV8x8x8": (((2, 2, 2), STILL), (STILL, (2, 2, 2))),
  "DV8x16x16": (((2, 2, 2), (1, 2, 2)), ((1, 2, 2), (2, 2, 2))),
}


def _model(name: str, frames: int) -> Model:
  downs, ups = STEPS[name]
  return Model(
    dict(name="cosmos", downs=downs, ups=ups),
    dict(name="fsq", levels=(8, 8, 8, 5, 5, 5)),
    frames=frames,
    size=(256, 256),
  )


# The frames that their own programs pass at once.
MODELS = {name: _model(name, 17) for name in STEPS}
MODELS["DV8x16x16_1.0"] = _model("DV8x16x16", 49)

BLOCK = {
  "norm1": "norm1.norm",
  "conv1_space": "conv1.0.conv3d",
  "conv1_time": "conv1.1.conv3d",
  "norm2": "norm2.norm",
  "conv2_space": "conv2.0.conv3d",
  "conv2_time": "conv2.1.conv3d",
  "shortcut": "nin_shortcut.conv3d",
}
ATTENTION = {
  "norm": "norm.norm",
  "q": "q.conv3d",
  "k": "k.conv3d",
  "v": "v.conv3d",
  "project": "proj_out.conv3d",
}
STEP = {
  "encoder": {"space": "conv1", "time": "conv2", "mix": "conv3"},
  "decoder": {"time": "conv1", "space": "conv2", "mix": "conv3"},
}
EDGES = {
  "encoder/head": "quant_conv.conv3d",
  "decoder/neck": "post_quant_conv.conv3d",
  "decoder/last": "decoder.conv_out.0.conv3d",
  "decoder/head": "decoder.conv_out.1.conv3d",
}
LAYERS = {
  "stem_space": "conv_in.0.conv3d",
  "stem_time": "conv_in.1.conv3d",
  "norm": "norm_out.norm",
  "last_space": "conv_out.0.conv3d",
  "last_time": "conv_out.1.conv3d",
}
MIDDLE = {
  "middle_block0": "mid.block_1",
  "middle_space": "mid.attn_1.0",
  "middle_time": "mid.attn_1.1",
  "middle_block1": "mid.block_2",
}


def select(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The arrays that were learnt."""
  return {k: a for k, a in state.items() if not k.startswith(BUFFERS)}


def convert(
  state: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays by their public names -> those of the backbone 'cosmos'."""
  ours = tree_utils.named(
    tokenizers.abstract(tokenizers.build_tokenizer(stage))
  )
  return renaming.rename(state, names(ours), tuple(unused(stage)))


def public(
  arrays: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of the backbone 'cosmos' -> by their public names.

  Raises:
    ValueError: a tokenizer that the public code does not have.
  """
  check_stage("cosmos", stage, FIXED)
  zeros = {
    name: np.zeros(shape, np.float32) for name, shape in unused(stage).items()
  }
  return renaming.rename_back(arrays, names(arrays)) | zeros


def names(arrays: Mapping[str, Any]) -> dict[str, TwoWays]:
  """The public name of each of our arrays, and what happens to its axes."""
  changes = {5: renaming.conv3d, 2: renaming.point3d, 1: renaming.same}
  return {
    public_name(name): (name, changes[len(array.shape)])
    for name, array in arrays.items()
  }


def public_name(name: str) -> str:
  """'backbone/encoder/norm/scale' -> 'encoder.norm_out.norm.weight'."""
  _, net, layer, *inner, leaf = name.split("/")
  leaf = "bias" if leaf == "bias" else "weight"
  if f"{net}/{layer}" in EDGES:
    return f"{EDGES[f'{net}/{layer}']}.{leaf}"
  if layer in LAYERS:
    return f"{net}.{LAYERS[layer]}.{leaf}"
  table = BLOCK if "_block" in layer else ATTENTION
  if layer in MIDDLE:
    return f"{net}.{MIDDLE[layer]}.{table[inner[0]]}.{leaf}"
  level, part = layer.removeprefix("level").split("_")
  side = f"{net}.{'down' if net == 'encoder' else 'up'}.{level}"
  if part.startswith("block"):
    number = part.removeprefix("block")
    return f"{side}.block.{number}.{BLOCK[inner[0]]}.{leaf}"
  return f"{side}.{part}sample.{STEP[net][inner[0]]}.conv3d.{leaf}"


def unused(stage: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Shapes of the public convolutions of steps that are not taken."""
  net = tokenizers.build_tokenizer(stage).backbone
  windows = {"space": (1, 3, 3), "time": (3, 1, 1), "mix": (1, 1, 1)}
  found = {}
  for side, steps, levels in (
    ("encoder", net.downs, net.levels[:-1]),
    ("decoder", net.ups, net.levels[:0:-1]),
  ):
    where = "down.{}.downsample" if side == "encoder" else "up.{}.upsample"
    for level, step in zip(levels, steps, strict=True):
      width = net.width * net.multipliers[level]
      used = {"space": step[1] > 1, "time": step[0] > 1, "mix": step != STILL}
      for kind, window in windows.items():
        if not used[kind]:
          name = f"{side}.{where.format(level)}.{STEP[side][kind]}.conv3d"
          found[f"{name}.weight"] = (width, width, *window)
          found[f"{name}.bias"] = (width,)
  return found
