"""Bouncing digits: the next 12 frames from 5, and digits by class.

  python -m magvit_jax train --config=generator/moving_digits \\
    --workdir=runs/dg --config.tokenizer.workdir=runs/dt

Data: as in tokenizer/moving_digits, whose run is needed first. The ids of a
clip are 5x6x6 positions of 1000; 5 of 17 frames are 2 of 5
latent frames.

Argument: `smoke` (a tiny net, a few steps: for tests).
"""

from magvit_jax.configs import common
from magvit_jax.configs.generator import clips
from magvit_jax.configs.tokenizer import moving_digits


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the generator of bouncing digits."""
  choice = common.parse_arg(arg, size=("full", "smoke"))
  cfg = clips.get_config()
  cfg.tokenizer.workdir = "runs/digits/tokenizer"
  cfg.steps = 1600
  cfg.stage.tasks.frame_prediction.frames = 5
  net = cfg.stage.generator.transformer
  net.width, net.heads, net.hidden = 192, 6, 512
  cfg.stage.optim.lr = 2e-3
  del cfg.data
  cfg.data = moving_digits.get_config().data
  cfg.eval.every = cfg.checkpoint.every = 400
  return common.small_generator(cfg) if choice["size"] == "smoke" else cfg
