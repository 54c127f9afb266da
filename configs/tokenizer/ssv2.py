"""MAGVIT's and MAGVIT-v2's tokenizers of Something-Something-v2.

  python -m magvit_jax train --config=tokenizer/ssv2:B --workdir=runs/ssv2 \\
    --config.data.root=/data/ssv2

Data: a folder of its videos, one subfolder per class if labels are wanted.
16x128x128 clips become 4x16x16 ids of 10 bits (MAGVIT), 17x128x128 become
5x16x16 ids of 18 bits (MAGVIT-v2). Clips are not mirrored: left and right are
part of the labels.

Hardware: 135 epochs of 168,913 clips in batches of 128 (B), 400 in batches of
256 (L), as published for MAGVIT. Not run by us. Published with a generator on
top: mean FVD over ten tasks 43.4 (B) and 27.3 (L) (MAGVIT, arXiv 2212.05199);
62.40 % accuracy from MAGVIT-v2's tokens (arXiv 2310.05737). Both with a
perceptual loss, which needs weights of yours.

Arguments: `size=B|L|smoke` (B of MAGVIT-v2 is ours: half its width),
`model=magvit|magvit2`,
`perceptual=none|resnet50|lpips` (configs/magvit.py).
"""

from magvit_jax.configs import common, magvit


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a tokenizer of Something-Something-v2."""
  choice = common.parse_arg(
    arg,
    size=magvit.SIZES,
    model=("magvit", "magvit2"),
    perceptual=magvit.PERCEPTUAL,
  )
  epochs = {"B": 135, "L": 400}
  return magvit.config(
    choice, pixels=128, clips=168_913, epochs=epochs, flip=False
  )
