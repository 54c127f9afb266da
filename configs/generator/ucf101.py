"""MAGVIT's generator of UCF-101 by class, and MAGVIT-v2's.

  python -m magvit_jax train --config=generator/ucf101:B --workdir=runs/ug \\
    --config.tokenizer.workdir=runs/ucf --config.data.root=/data/ucf101

Data: as in tokenizer/ucf101, whose run is needed first, of the same `model`.
The net predicts 4x16x16 ids of 10 bits (MAGVIT, 16 frames) or 5x16x16 pairs of
9 bits (MAGVIT-v2, 17 frames) from the class.

Hardware: 2,000 epochs of 9,537 clips, 74,000 steps of 256. MAGVIT trained B on
16 TPUv2 at 1.24 steps/s, which makes 17 hours, L on 32 TPUv4 at 2.70, 8 hours
(appendix B). Not run by us. The length of MAGVIT-v2's run was not seen.

Published FVD of 10,000 samples against clips of the training set: 159 (B) and
76 (L) with IS 83.55 and 89.27, in 12 steps (MAGVIT); 58 (MAGVIT-v2, L).

Arguments: `size=B|L|smoke` (smoke is a tiny net, for tests),
`model=magvit|magvit2`, `input=videos|tokens`.
"""

from magvit_jax.configs import commit, common
from magvit_jax.configs.tokenizer import ucf101


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a generator of UCF-101."""
  choice = common.parse_arg(
    arg, size=commit.SIZES, model=("magvit", "magvit2"), input=commit.INPUTS
  )
  size, model = choice["size"], choice["model"]
  return commit.config(
    size,
    choice["input"],
    ucf101.get_config(f"size={size},model={model}"),
    workdir="runs/ucf101/tokenizer",
    clips=9_537,
    epochs={"B": 2000, "L": 2000},
    tasks={"class_cond": {}},
    sampling={} if model == "magvit" else commit.V2_SAMPLING,
  )
