"""The causal tokenizer of tokenizer/clips, wider, for your own folder.

  python -m magvit_jax train --config=tokenizer/large --workdir=runs/lt \\
    --config.data.root=/my/videos

13x128x128 crops become 4x16x16 ids of 18 bits: 1,024 tokens, a length that the
tiles of a TPU divide. Meant for a v5e:4x4; no run of it is ours. What it would
cost: `python -m magvit_jax plan --config=tokenizer/large --topology=v5e:4x4`.

Argument: `smoke` (a tiny net, a few steps: for tests).
"""

from magvit_jax.configs import common
from magvit_jax.configs.tokenizer import clips


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the tokenizer of generator/large."""
  choice = common.parse_arg(arg, size=("full", "smoke"))
  small = choice["size"] == "smoke"
  cfg = clips.get_config("smoke" if small else None)
  if not small:
    cfg.steps, cfg.batch = 100_000, 256
    cfg.stage.backbone.width, cfg.stage.backbone.blocks = 512, 6
    cfg.stage.optim.lr, cfg.stage.optim.warmup = 5e-4, 1000
    cfg.stage.ema.decay = 0.999
    cfg.eval.every = cfg.checkpoint.every = 5000
    cfg.eval.batch = 256
  del cfg.data
  cfg.data = dict(
    name="video_folder",
    root="",
    frames=13,
    size=(32, 32) if small else (128, 128),
    lines=144,
    stride=1,
    fps=0.0,
    holdout=0.1,
    eval_clips=6 if small else 1024,
    flip=True,
    on_corrupt="replace",
  )
  return cfg
