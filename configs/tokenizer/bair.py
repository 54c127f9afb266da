"""MAGVIT's tokenizer of BAIR robot pushing, and MAGVIT-v2's net on it.

  python -m magvit_jax train --config=tokenizer/bair:B --workdir=runs/bair \\
    --config.data.root=/data/bair

Data: a folder of its videos, 30 frames of 64x64 each, from the main camera.
16x64x64 clips become 4x16x16 ids of 10 bits (MAGVIT), 17x64x64 become 5x16x16
ids of 18 bits (MAGVIT-v2, which has no published net at this size: this one is
ours, of three levels and 4x4 pixels per token).

Hardware: 135,200 steps, as published, of 128 (B) or 256 (L) clips. Not run by
us. Published with a generator on top: frame prediction at FVD 76 (B) and 62 (L)
(MAGVIT, arXiv 2212.05199), with a perceptual loss, which needs weights of
yours; rFVD of the tokenizer alone was not seen.

Arguments: `size=B|L|smoke`, `model=magvit|magvit2`,
`perceptual=none|resnet50|lpips` (configs/magvit.py).
"""

from magvit_jax.configs import common, magvit


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a tokenizer of BAIR."""
  choice = common.parse_arg(
    arg,
    size=magvit.SIZES,
    model=("magvit", "magvit2"),
    perceptual=magvit.PERCEPTUAL,
  )
  epochs = {"B": 400, "L": 800}
  return magvit.config(
    choice, pixels=64, clips=43_264, epochs=epochs, flip=False
  )
