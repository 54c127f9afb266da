"""A masked transformer on the quickstart's tokens, for two CPU cores.

  python -m magvit_jax train --config=generator/clips --workdir=runs/g \\
    --config.tokenizer.workdir=runs/clips

Data: as in tokenizer/clips, whose run is needed first. Each of the bundled
clips is a class; subfolders are the classes of your own folder, given by
--config.data.root=DIR. The ids of a 9x64x64 clip (3x8x8 positions, two factors
of 512) are predicted by a transformer of 0.9 million weights, for two tasks
mixed in every batch: by class, and from the first frame. So small a one takes
the most steps in the few minutes there are.

To expect on held-out clips after 500 steps: a cross-entropy of 8.2 nats per
position, where the unigram has 11.3 (bash launch/quickstart.sh).

Argument: `smoke` (a tiny net, a few steps: for tests).
"""

from magvit_jax import run_config
from magvit_jax.configs import common
from magvit_jax.configs.tokenizer import clips


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the quickstart's generator."""
  choice = common.parse_arg(arg, size=("full", "smoke"))
  cfg = run_config.base()
  cfg.steps = 500
  cfg.batch = 16
  cfg.tokenizer = dict(workdir="runs/quickstart/tokenizer", fingerprint="")
  cfg.stage = dict(
    name="generator",
    generator=dict(
      name="masked",
      transformer=dict(
        name="modern",
        layers=4,
        width=128,
        heads=4,
        hidden=344,
        dropout=0.0,
      ),
      condition="hard",
      label_dropout=0.1,
      schedule="cosine",
      smoothing=0.0,
    ),
    tasks=dict(
      class_cond=dict(weight=1.0),
      frame_prediction=dict(frames=1, weight=1.0),
    ),
    weights=dict(loss_tokens=1.0),
    optim=dict(
      name="adamw",
      lr=3e-3,
      warmup=50,
      schedule="cosine",
      b1=0.9,
      b2=0.96,
      weight_decay=0.045,
      clip=1.0,
    ),
    ema=dict(decay=0.99, warmup=True),
    sampling=common.sampling(),
    dtype="auto",
    param_dtype="float32",
    accumulate=1,
  )
  cfg.data = clips.get_config().data
  cfg.eval = common.generator_eval(every=400, batch=16)
  cfg.checkpoint = dict(
    every=400, keep=2, best="eval_cross_entropy", best_mode="min"
  )
  return common.small_generator(cfg) if choice["size"] == "smoke" else cfg
