"""LPIPS with VGG-16: torchvision's classifier and the linear layers of lpips.

Both files are needed. The classifier's last layers are left out.
"""

import numpy as np

from magvit_jax.convert import renaming
from magvit_jax.convert.public_file import PublicFile
from magvit_jax.convert.renaming import Rule
from magvit_jax.losses import perceptual
from magvit_jax.nets import vgg16
from magvit_jax.types import PyTree

FILES = {
  "vgg16-397923af.pth": PublicFile(
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af",
    "VGG-16 of torchvision, VGG16_Weights.IMAGENET1K_V1",
  ),
  "vgg.pth": PublicFile(
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/"
    "weights/v0.1/vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "linear layers of LPIPS 0.1, also in the wheel lpips 0.1.4",
  ),
}
NOTES = {"net": "vgg16"}
USE = (
  "--config=tokenizer/ucf101:perceptual=lpips "
  "--config.stage.perceptual.weights={out}"
)
IGNORED = ("classifier.",)


def names() -> dict[str, Rule]:
  """Public names to ours. torchvision numbers ReLUs and pools too."""
  table: dict[str, Rule] = {}
  number = 0
  for i, depth in enumerate(vgg16.DEPTHS, 1):
    for j in range(1, depth + 1):
      ours = f"net/conv{i}_{j}"
      table[f"features.{number}.weight"] = f"{ours}/kernel", renaming.conv2d
      table[f"features.{number}.bias"] = f"{ours}/bias", renaming.same
      number += 2
    number += 1
    linear = f"lin{i - 1}.model.1.weight"
    table[linear] = f"linear/relu{i}_{depth}/scale", np.ravel
  return table


def convert(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of both files -> weights of the loss 'lpips'."""
  return renaming.rename(state, names(), IGNORED)


def shapes() -> PyTree:
  """Shapes of the weights of the loss."""
  return perceptual.build({"name": "lpips"}, np.float32).abstract()
