"""Bouncing digits: the next 12 frames from 5, and digits by class.

  python -m magvit_jax train --config=generator/moving_digits \\
    --workdir=runs/dg --config.tokenizer.workdir=runs/dt

Data: as in tokenizer/moving_digits, whose run is needed first. The ids of a
clip are 5x4x4 positions of 27; 5 of 17 frames are 2 of 5 latent frames. A class
says little about any one position, so samples by class need guidance.

To expect: 13.3 dB for the predicted frames, where repeating the last one has
12.0; 0.96 of the samples recognised by a classifier, which recognises 0.77 of
the tokenizer's reconstructions (python benchmarks/digits.py --workdir=...). On
two busy cores it takes 37 minutes.

Arguments: `tasks=ten` (MAGVIT's ten tasks by COMMIT, in place of the two
above), `smoke` (a tiny net, a few steps: for tests).
"""

from magvit_jax.configs import commit, common
from magvit_jax.configs.generator import clips
from magvit_jax.configs.tokenizer import moving_digits


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the generator of bouncing digits."""
  choice = common.parse_arg(arg, size=("full", "smoke"), tasks=("two", "ten"))
  cfg = clips.get_config()
  cfg.tokenizer.workdir = "runs/digits/tokenizer"
  cfg.steps, cfg.batch = 4000, 32
  if choice["tasks"] == "ten":
    cfg.stage.tasks = {name: dict(weight=1.0) for name in commit.TASKS}
    cfg.stage.tasks.class_cond_frame_prediction.frames = 5
    cfg.stage.generator.condition = "commit"
  cfg.stage.tasks.frame_prediction.frames = 5
  cfg.stage.optim.lr = 2e-3
  cfg.stage.sampling = common.sampling(
    steps=20, guidance=4.0, temperature=0.5, choice_temperature=1.0
  )
  del cfg.data
  cfg.data = moving_digits.get_config().data
  cfg.eval.every = cfg.checkpoint.every = 1000
  return common.small_generator(cfg) if choice["size"] == "smoke" else cfg
