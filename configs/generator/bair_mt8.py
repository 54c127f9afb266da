"""MAGVIT's eight tasks on BAIR robot pushing, by one net.

  python -m magvit_jax train --config=generator/bair_mt8:B --workdir=runs/bm \\
    --config.tokenizer.workdir=runs/bair --config.data.root=/data/bair

Data: as in tokenizer/bair, whose run is needed first. Frame prediction and
interpolation, outpainting of a central box, of vertical, horizontal and moving
strips, inpainting of a central and of a moving box, in equal shares.

Hardware: 1,200 epochs of 43,264 clips for B and 1,600 for L, 202,800 and
270,400 steps of 256; at MAGVIT's 1.24 steps/s on 16 TPUv2 (B) and 2.70 on 32
TPUv4 (L) 45 and 28 hours. Not run by us.

Published FVD, the mean over the tasks: 32.8 (B) and 22.8 (L).

Arguments: `size=B|L|smoke`, `input=videos|tokens`.
"""

from magvit_jax.configs import commit, common
from magvit_jax.configs.tokenizer import bair


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a generator of BAIR for eight tasks."""
  choice = common.parse_arg(arg, size=commit.SIZES, input=commit.INPUTS)
  size = choice["size"]
  return commit.config(
    size,
    choice["input"],
    bair.get_config(size),
    workdir="runs/bair/tokenizer",
    clips=43_264,
    epochs={"B": 1200, "L": 1600},
    tasks={name: {} for name in commit.EDITS},
    sampling={},
  )
