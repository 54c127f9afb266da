"""MAGVIT's frame prediction on BAIR robot pushing, 1 frame to 15.

  python -m magvit_jax train --config=generator/bair:B --workdir=runs/bg \\
    --config.tokenizer.workdir=runs/bair --config.data.root=/data/bair

Data: as in tokenizer/bair, whose run is needed first. The published figures
are of the camera image_aux1. The first of 16 frames is given: 1 of 4 latent
frames, of which three pixel frames are padding, so that the loss also refines
the condition.

Hardware: 400 epochs of 43,264 clips for B and 800 for L, 67,600 and 135,200
steps of 256; at MAGVIT's 1.24 steps/s on 16 TPUv2 (B) and 2.70 on 32 TPUv4 (L)
15 and 14 hours. Not run by us.

Published FVD: 76 (B) and 62 (L) from the first frames of the 256 test videos
with 100 samples each, decoded by the schedule `exp` at choice temperature 400,
as here; 48 and 31 from all 15 windows of each video, decoded by `cosine` at
4.5 (--config.stage.sampling.schedule=cosine
--config.stage.sampling.choice_temperature=4.5).

Arguments: `size=B|L|smoke`, `input=videos|tokens`.
"""

from magvit_jax.configs import commit, common
from magvit_jax.configs.tokenizer import bair


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of a generator of BAIR."""
  choice = common.parse_arg(arg, size=commit.SIZES, input=commit.INPUTS)
  size = choice["size"]
  return commit.config(
    size,
    choice["input"],
    bair.get_config(size),
    workdir="runs/bair/tokenizer",
    clips=43_264,
    epochs={"B": 400, "L": 800},
    tasks={"frame_prediction": dict(frames=1)},
    sampling=dict(schedule="exp", choice_temperature=400.0),
  )
