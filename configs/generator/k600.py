"""MAGVIT-v2's and MAGVIT's frame prediction on Kinetics-600, from 5 frames.

  python -m magvit_jax train --config=generator/k600:L --workdir=runs/kg \\
    --config.tokenizer.workdir=runs/k600 --config.data.root=/data/k600

Data: as in tokenizer/k600, whose run is needed first, of the same `model`. Five
frames are 2 of the 5 latent frames of 17 (MAGVIT-v2), and fill 2 of the 4 of 16
with padding (MAGVIT).

Hardware: 180 epochs of 392,622 clips for B and 360 for L, 275,940 and 551,880
steps of 256; at MAGVIT's 1.24 steps/s on 16 TPUv2 (B) and 2.70 on 32 TPUv4 (L)
62 and 57 hours. Not run by us.

Published FVD of 50,000 samples: 4.3 (MAGVIT-v2 in 24 steps at choice
temperature 32); 24.5 (B) and 9.9 (L) at 64x64 (MAGVIT in 12 steps, by the
schedule `uniform` at 7.5).

Arguments: `size=B|L|smoke`, `model=magvit2|magvit`, `input=videos|tokens`.
"""

from magvit_jax.configs import commit, common
from magvit_jax.configs.tokenizer import k600


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a generator of Kinetics-600."""
  choice = common.parse_arg(
    arg, size=commit.SIZES, model=("magvit2", "magvit"), input=commit.INPUTS
  )
  size, model = choice["size"], choice["model"]
  uniform = dict(schedule="uniform", choice_temperature=7.5)
  return commit.config(
    size,
    choice["input"],
    k600.get_config(f"size={size},model={model}"),
    workdir="runs/k600/tokenizer",
    clips=392_622,
    epochs={"B": 180, "L": 360},
    tasks={"frame_prediction": dict(frames=5)},
    sampling=uniform if model == "magvit" else commit.V2_SAMPLING,
  )
