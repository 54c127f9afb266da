"""MAGVIT-v2's and MAGVIT's tokenizers of Kinetics-600.

  python -m magvit_jax train --config=tokenizer/k600:L --workdir=runs/k600 \\
    --config.data.root=/data/k600

Data: a folder of its videos, one subfolder per class. 17x128x128 clips become
5x16x16 ids of 18 bits (MAGVIT-v2); 16x128x128 become 4x16x16 ids of 10 bits
(MAGVIT).

Hardware: batches of 128 (B) or 256 (L) clips for 190 epochs of 392,622 clips,
as MAGVIT-v2's L is published; MAGVIT took 45 epochs for B and 180 for L
(--config.steps). Not run by us. Published with a generator on top: prediction
of frames after the fifth at FVD 4.3 in 24 steps (MAGVIT-v2, arXiv 2310.05737),
and 24.5 (B) or 9.9 (L) at 64x64 (MAGVIT, arXiv 2212.05199). Both with a
perceptual loss, which needs weights of yours.

Arguments: `size=B|L|smoke` (B of MAGVIT-v2 is ours: half its width),
`model=magvit2|magvit`, `perceptual=none|resnet50|lpips` (configs/magvit.py),
`images=none|folder`: with images of --config.images.data.root beside the clips
in each batch, for nets that code one frame alone (`magvit2`). To begin with the
weights of an image run: --config.init_from=runs/in --config.inflate=last.
"""

from magvit_jax.configs import common, magvit


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a tokenizer of Kinetics-600."""
  choice = common.parse_arg(
    arg,
    size=magvit.SIZES,
    model=("magvit2", "magvit"),
    perceptual=magvit.PERCEPTUAL,
    images=magvit.IMAGES,
  )
  epochs = {"B": 190, "L": 190}
  return magvit.config(
    choice, pixels=128, clips=392_622, epochs=epochs, flip=True
  )
