"""MAGVIT's ten tasks on Something-Something-v2, by one net.

  python -m magvit_jax train --config=generator/ssv2_mt10:B --workdir=runs/sg \\
    --config.tokenizer.workdir=runs/ssv2 --config.data.root=/data/ssv2

Data: as in tokenizer/ssv2, whose run is needed first, with one subfolder per
class. The eight tasks of generator/bair_mt8, and generation and frame
prediction by class, in equal shares.

Hardware: 720 epochs of 168,913 clips for B and 1,440 for L, 474,480 and 948,960
steps of 256; at MAGVIT's 1.24 steps/s on 16 TPUv2 (B) and 2.70 on 32 TPUv4 (L)
106 and 98 hours. Not run by us.

Published FVD, the mean over the tasks: 43.4 (B) and 27.3 (L).

Arguments: `size=B|L|smoke`, `input=videos|tokens`.
"""

from magvit_jax.configs import commit, common
from magvit_jax.configs.tokenizer import ssv2


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a generator of Something-Something-v2 for ten tasks."""
  choice = common.parse_arg(arg, size=commit.SIZES, input=commit.INPUTS)
  size = choice["size"]
  return commit.config(
    size,
    choice["input"],
    ssv2.get_config(size),
    workdir="runs/ssv2/tokenizer",
    clips=168_913,
    epochs={"B": 720, "L": 1440},
    tasks={name: {} for name in commit.TASKS},
    sampling={},
  )
