"""A causal tokenizer of bouncing digits, for two CPU cores.

  python -m magvit_jax train --config=tokenizer/moving_digits \
    --workdir=runs/digits/tokenizer

Data: the digits that scikit-learn carries, moving in 17 frames of 16x16, which
become 5x4x4 ids of 27. The backbone is that of tokenizer/clips with blocks of
4x4x4 pixels. The quantizer is `fsq` with few levels: a generator that has half
an hour on two cores learns 27 ids, and does not learn 1,000.

To expect: 19 dB on held-out clips, where box means have 14; a minute.

Argument: `smoke` (a tiny net, a few steps: for tests).
"""

from magvit_jax.configs import common
from magvit_jax.configs.tokenizer import clips


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the tokenizer of generator/moving_digits."""
  choice = common.parse_arg(arg, size=("full", "smoke"))
  cfg = clips.get_config("smoke" if choice["size"] == "smoke" else None)
  cfg.stage.backbone.patch = (4, 4, 4)
  cfg.stage.quantizer = dict(name="fsq", levels=(3, 3, 3))
  cfg.stage.weights = dict(loss_l2=5.0)
  if choice["size"] == "full":
    cfg.steps = 1000
    cfg.stage.backbone.width = 128
  data = dict(
    name="moving_digits",
    frames=17,
    size=(16, 16),
    digits=1,
    scale=0.625,
    speed=0.1,
    eval_clips=cfg.data.eval_clips,
    on_corrupt="raise",
  )
  del cfg.data
  cfg.data = data
  return cfg
