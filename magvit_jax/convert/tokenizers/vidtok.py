"""VidTok's causal FSQ tokenizers, version 1.0 (Microsoft).

--input is a .ckpt of the training code, of which the encoder and the decoder
are read; if it is refused, as it holds more than tensors, save its state_dict
alone where you trust it. Neither version 1.1, whose decoder sees later frames,
nor the nets that are not causal or not discrete are read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from magvit_jax import tokenizers, tree_utils
from magvit_jax.convert import renaming
from magvit_jax.convert.public_file import UNKNOWN, PublicFile
from magvit_jax.convert.renaming import Change, TwoWays
from magvit_jax.convert.tokenizers import Model, check_stage

HUB = "https://huggingface.co/microsoft/VidTok/resolve/main/checkpoints/"
FIXED = {
  "backbone": dict(name="vidtok"),
  "quantizer": dict(name="fsq", form="tanh", gain=1.0, factors=1),
}
DEEP = dict(
  multipliers=(1, 2, 4, 4, 4),
  downs=((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
  ups=((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
)


def _model(numbers: int, **net: Any) -> Model:
  """A published net of latents of so many numbers of 8 levels."""
  quantizer = dict(name="fsq", levels=(8,) * numbers)
  return Model(dict(name="vidtok", **net), quantizer, 17, (256, 256))


MODELS = {
  "fsq_causal_488_4096": _model(4),
  "fsq_causal_488_32768": _model(5),
  "fsq_causal_488_262144": _model(6),
  "fsq_causal_41616_262144": _model(6, **DEEP),
}
FILES = {
  f"vidtok_{name}.ckpt": PublicFile(
    f"{HUB}vidtok_{name}.ckpt", UNKNOWN, f"--model={name}"
  )
  for name in MODELS
}

BLOCK = {
  "PositionNorm_0": "norm1",
  "CausalConv_0": "conv1",
  "PositionNorm_1": "norm2",
  "CausalConv_1": "conv2",
  "CausalConv_2": "nin_shortcut",
}
LAYERS = {
  "stem": "conv_in.conv",
  "norm": "norm_out.norm",
  "head": "conv_out.conv",
}
MIDDLE = {"middle_block0": "mid.block_1", "middle_block1": "mid.block_2"}
SIDE = {"encoder": "down", "decoder": "up"}
# torch's [o c h w] and [o c t] -> [t h w c o].
plane = Change(
  lambda x: x.transpose(2, 3, 1, 0)[None], lambda x: x[0].transpose(3, 2, 0, 1)
)
line = Change(
  lambda x: x.T[:, None, None], lambda x: x[:, 0, 0].transpose(2, 1, 0)
)


def select(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The arrays of the tokenizer: no losses, no discriminator."""
  nets = ("encoder.", "decoder.")
  return {name: a for name, a in state.items() if name.startswith(nets)}


def convert(
  state: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays by their public names -> those of the backbone 'vidtok'."""
  ours = tree_utils.named(
    tokenizers.abstract(tokenizers.build_tokenizer(stage))
  )
  return renaming.rename(state, names(ours))


def public(
  arrays: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of the backbone 'vidtok' -> by their public names.

  Raises:
    ValueError: a tokenizer that the public code does not have.
  """
  check_stage("vidtok", stage, FIXED)
  return renaming.rename_back(arrays, names(arrays))


def names(arrays: Mapping[str, Any]) -> dict[str, TwoWays]:
  """The public name of each of our arrays, and what happens to its axes."""
  table = {}
  for name, array in arrays.items():
    layer, leaf = public_layer(name)
    change = renaming.same
    if len(array.shape) == 2:
      change = renaming.point3d
    elif len(array.shape) == 5:
      change = _kernel(layer)
    table[f"{layer}{leaf}"] = name, change
  return table


def _kernel(layer: str) -> Change:
  """What happens to the axes of a convolution of a public name."""
  part = layer.split(".")[1]
  if part in ("down", "up"):
    return plane
  in_time = part.endswith("_temporal") and ".block." in layer
  return line if in_time else renaming.conv3d


def public_layer(name: str) -> tuple[str, str]:
  """Ours -> ('encoder.conv_in.conv', '.weight')."""
  _, net, layer, *inner, leaf = name.split("/")
  leaf = ".bias" if leaf == "bias" else ".weight"
  if layer in LAYERS:
    return f"{net}.{LAYERS[layer]}", leaf
  if layer in MIDDLE:
    return f"{net}.{MIDDLE[layer]}.{_of_block(inner[0], '.conv')}", leaf
  if layer == "middle_attention":
    kind = "norm.norm" if inner[0] == "norm" else f"{inner[0]}.conv"
    return f"{net}.mid.attn_1.{kind.replace('project', 'proj_out')}", leaf
  level, part, *time = layer.removeprefix("level").split("_")
  temporal = "_temporal" if time or part.startswith("time") else ""
  where = f"{net}.{SIDE[net]}{temporal}.{level}"
  if part.startswith(("space", "time")):
    number = part.removeprefix("space").removeprefix("time")
    inside = _of_block(inner[0], ".conv" if temporal else "")
    return f"{where}.block.{number}.{inside}", leaf
  where = f"{where}.{SIDE[net]}sample"
  if temporal and not inner:
    return where, ".mix_factor"
  return f"{where}.conv{'.conv' * bool(temporal)}", leaf


def _of_block(layer: str, conv: str) -> str:
  """Public name of a layer of a block; `conv` wraps its convolutions."""
  return BLOCK[layer] + (".norm" if layer.startswith("Position") else conv)
