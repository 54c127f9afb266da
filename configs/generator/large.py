"""A masked transformer of 300 million weights over 1,024 tokens, on a v5e:4x4.

  python -m magvit_jax train --config=tokenizer/large --workdir=runs/lt \\
    --config.data.root=/my/videos
  python -m magvit_jax encode --workdir=runs/lt --split=train train.npz
  python -m magvit_jax encode --workdir=runs/lt --split=eval eval.npz
  python -m magvit_jax train --config=generator/large --workdir=runs/lg \\
    --config.tokenizer.workdir=runs/lt --config.data.train=train.npz \\
    --config.data.eval=eval.npz

24 layers of width 1024 with 8 heads (128 channels each, the lanes of a TPU),
over the 4x16x16 ids of tokenizer/large.
Every clip is seen many times, so its ids are stored once and a step holds no
tokenizer; `input=videos` encodes in every step instead. The state is split over
all chips (fsdp). No run of it is ours; what it would cost is said by

  python -m magvit_jax plan --config=generator/large --topology=v5e:4x4

(libtpu 0.0.42.1: 9.7 GiB of a chip, 354 ms a step, 2.4 times its matmul time).

Argument: `input=tokens|videos`, `smoke` (a tiny net, a few steps: for tests).
"""

from magvit_jax.configs import common
from magvit_jax.configs.generator import clips
from magvit_jax.configs.tokenizer import large


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the large generator."""
  choice = common.parse_arg(
    arg, input=("tokens", "videos"), size=("full", "smoke")
  )
  cfg = clips.get_config()
  cfg.tokenizer.workdir = "runs/large/tokenizer"
  cfg.steps, cfg.batch = 200_000, 256
  cfg.mesh = dict(data=1, fsdp=-1, context=1, tensor=1)
  net = cfg.stage.generator.transformer
  net.layers, net.width, net.heads, net.hidden = 24, 1024, 8, 2688
  net.remat = "dots"
  cfg.stage.tasks.frame_prediction.frames = 5
  cfg.stage.optim.lr, cfg.stage.optim.warmup = 3e-4, 5000
  cfg.stage.ema.decay = 0.999
  cfg.eval.every = cfg.checkpoint.every = 5000
  cfg.eval.batch = 256
  del cfg.data
  cfg.data = large.get_config(choice["size"]).data
  if choice["size"] == "smoke":
    cfg = common.small_generator(cfg)
  return common.stored_tokens(cfg) if choice["input"] == "tokens" else cfg
