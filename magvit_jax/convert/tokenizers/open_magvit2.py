"""Open-MAGVIT2's video tokenizer (LFQ, 18 bits) of TencentARC/SEED-Voken.

--input is the checkpoint of Lightning, or a state_dict of its VQModel, of which
the moving average is taken where there is one, as its own evaluation does. The
discriminator, LPIPS and counters are left out; LFQ has no weights.

A tokenizer of ours is written as the state_dict of its encoder and decoder,
which VQModel loads with strict=False.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from magvit_jax import tokenizers, tree_utils
from magvit_jax.convert import renaming
from magvit_jax.convert.public_file import UNKNOWN, PublicFile
from magvit_jax.convert.renaming import Change
from magvit_jax.convert.tokenizers import Model, check_stage

FILES = {
  "video_128_262144.ckpt": PublicFile(
    "https://huggingface.co/TencentARC/Open-MAGVIT2-Tokenizer-262144-Video",
    UNKNOWN,
    "17x128x128 clips of UCF-101 to 5x16x16 ids of 18 bits, 2.96 GB",
  ),
}
AVERAGE = "model_ema."  # of an array whose name has lost its dots
PARTS = ("encoder.", "decoder.")
TRAINING = (AVERAGE, "loss.")  # the loss holds the discriminator and LPIPS
FIXED = {
  "backbone": dict(name="open_magvit2"),
  "quantizer": dict(name="lfq", factors=1),
}
MODELS = {
  "ucf101": Model(
    dict(
      name="open_magvit2",
      width=128,
      multipliers=(1, 2, 2, 4),
      blocks=4,
      strides=((1, 2, 2), (2, 2, 2), (2, 2, 2)),
    ),
    dict(name="lfq", bits=18, factors=1, temperature=0.01),
    frames=17,
    size=(128, 128),
  ),
}
# Layers by our names, as patterns of the public ones.
LAYERS = (
  (r"level(\d+)_block(\d+)", r"{level}.\1.block.\2"),
  (r"middle_block(\d+)", r"mid_block.\1"),
  (r"level(\d+)_adapt", r"adaptive.\1"),
  (r"level(\d+)_down", r"down.\1.downsample.conv_1"),
  (r"level(\d+)_up", r"up.\1.upsample.conv1.conv_1"),
  (r"stem", r"conv_in.conv_1"),
  (r"norm", r"norm_out"),
  (r"head", r"conv_out.conv_1"),
)
INNER = {
  "norm1": "norm1",
  "conv1": "conv1.conv_1",
  "norm2": "norm2",
  "conv2": "conv2.conv_1",
  "shortcut": "nin_shortcut.conv_1",
  "scale": "gamma",
  "shift": "beta",
}
CHANGES: dict[tuple[str, int], Change] = {
  ("kernel", 5): renaming.conv3d,
  ("kernel", 2): renaming.dense,
}


def select(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Encoder and decoder, averaged where the file has the averages."""
  kept = {k: a for k, a in state.items() if not k.startswith(TRAINING)}
  for name in kept:
    average = AVERAGE + name.replace(".", "")
    if name.startswith(PARTS) and average in state:
      kept[name] = state[average]
  return kept


def convert(
  state: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of the state_dict -> those of the backbone open_magvit2."""
  return renaming.rename(
    state,
    names(
      tree_utils.named(tokenizers.abstract(tokenizers.build_tokenizer(stage)))
    ),
  )


def public(
  arrays: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of the backbone open_magvit2 -> the state_dict.

  Raises:
    ValueError: a tokenizer of another backbone, or not of LFQ with one id.
  """
  check_stage("open_magvit2", stage, FIXED)
  return renaming.rename_back(arrays, names(arrays))


def names(arrays: Mapping[str, Any]) -> dict[str, renaming.TwoWays]:
  """The public name of each of our arrays, and what happens to its axes."""
  return dict(_rule(name, array.ndim) for name, array in arrays.items())


def _rule(name: str, axes: int) -> tuple[str, renaming.TwoWays]:
  """(public name, (our name, change)) of an array with so many axes."""
  _, part, layer, *inner, last = name.split("/")
  for ours, theirs in LAYERS:
    level = "down" if part == "encoder" else "up"
    layer, found = re.subn(f"^{ours}$", theirs.format(level=level), layer)
    if found:
      break
  change = CHANGES.get((last, axes), renaming.same)
  if part == "encoder" and layer.startswith("conv_out") and axes == 2:
    change = renaming.point3d
  last = "bias" if last == "bias" else "weight"
  return ".".join([part, layer, *(INNER[i] for i in inner), last]), (
    name,
    change,
  )
