"""MAGVIT's and MAGVIT-v2's tokenizers of UCF-101, and the steps between.

  python -m magvit_jax train --config=tokenizer/ucf101:B --workdir=runs/ucf \\
    --config.data.root=/data/ucf101

Data: the folder of UCF-101, one subfolder per class. 16x128x128 clips become
4x16x16 ids of 10 bits (MAGVIT); 17x128x128 become 5x16x16 ids of 18 bits (the
others). A tenth of the files is held out by a hash of their names, which is
not the official list: `model=magvit`'s steps are for its 9,537 clips.

Hardware: B was trained on 16 TPUv2 at 0.41 steps/s, which makes 25 hours of its
37,000 steps; L on 32 TPUv4 at 0.56, 37 hours of 74,000 (MAGVIT, appendix B).
Not run by us.

Published rFVD on the training set: MAGVIT B 127 from scratch and 58 inflated
from images, L 45 and 25; MAGVIT-v2 8.62. All of them with a perceptual loss,
which is off unless you give it weights: configs/magvit.py has all losses, and
the ladder between the two models.

Arguments: `size=B|L|smoke` (B of MAGVIT-v2 is ours: half its width; smoke is a
tiny net, for tests), `model` a rung of the ladder, `perceptual` a loss of
`none|resnet50|lpips` with weights of yours.
"""

from magvit_jax.configs import common, magvit


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a tokenizer of UCF-101."""
  choice = common.parse_arg(
    arg,
    size=magvit.SIZES,
    model=magvit.RUNGS,
    perceptual=magvit.PERCEPTUAL,
  )
  epochs = {"B": 500, "L": 2000}
  return magvit.config(
    choice, pixels=128, clips=9_537, epochs=epochs, flip=True
  )
