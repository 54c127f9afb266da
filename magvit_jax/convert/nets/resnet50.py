"""ResNet-50 of torchvision, its batch norms folded into the convolutions."""

import re

import numpy as np

from magvit_jax.convert import renaming
from magvit_jax.convert.public_file import PublicFile
from magvit_jax.losses import perceptual
from magvit_jax.nets import resnet50
from magvit_jax.types import PyTree

FILES = {
  "resnet50-0676ba61.pth": PublicFile(
    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "0676ba61",
    "ResNet-50 of torchvision, ResNet50_Weights.IMAGENET1K_V1",
  ),
  "resnet50-11ad3fa6.pth": PublicFile(
    "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    "11ad3fa6",
    "the same net by a newer recipe, ResNet50_Weights.IMAGENET1K_V2",
  ),
}
NOTES = {"net": "resnet50", "origin": "torchvision"}
USE = (
  "--config=tokenizer/ucf101:perceptual=resnet50 "
  "--config.stage.perceptual.weights={out}"
)
NORM = ("weight", "bias", "running_mean", "running_var")


def layers(state: dict[str, np.ndarray]) -> dict[str, tuple[str, str]]:
  """Our name of each convolution to its (convolution, batch norm)."""
  found = {"net/stem": ("conv1", "bn1")}
  for name in state:
    block = re.fullmatch(
      r"layer(\d+)\.(\d+)\.(conv\d|downsample\.0)\.weight", name
    )
    if block:
      stage, number, conv = block.groups()
      theirs = f"layer{stage}.{number}"
      ours = f"net/stage{stage}_block{int(number) + 1}"
      if conv == "downsample.0":
        pair = f"{theirs}.downsample.0", f"{theirs}.downsample.1"
        found[f"{ours}/shortcut"] = pair
      else:
        found[f"{ours}/{conv}"] = f"{theirs}.{conv}", f"{theirs}.bn{conv[-1]}"
  return found


def convert(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of torchvision's file -> weights of the loss 'resnet50'."""
  pairs = layers(state)
  used = {"fc.weight", "fc.bias"}
  for conv, norm in pairs.values():
    used |= {f"{conv}.weight", *(f"{norm}.{part}" for part in NORM)}
  extra = [
    name
    for name in state
    if name not in used and not name.endswith(".num_batches_tracked")
  ]
  renaming.check_names(sorted(used - state.keys()), extra)
  out = {
    "net/head/kernel": renaming.dense(state["fc.weight"]),
    "net/head/bias": state["fc.bias"],
  }
  for ours, (conv, norm) in pairs.items():
    kernel = renaming.conv2d(state[f"{conv}.weight"])
    parts = (state[f"{norm}.{part}"] for part in NORM)
    out[f"{ours}/kernel"], out[f"{ours}/bias"] = resnet50.fold(kernel, *parts)
  return out


def shapes() -> PyTree:
  """Shapes of the weights of the loss."""
  return perceptual.build({"name": "resnet50"}, np.float32).abstract()
