"""Net, recipe and decoding of MAGVIT's generator, for configs/generator.

MAGVIT (arXiv 2212.05199) and MAGVIT-v2 (2310.05737) train the same net: BERT of
87 (B) or 306 (L) million weights on interior condition tokens (COMMIT). Of the
ids of MAGVIT-v2, two of 9 bits each, our vocabulary has 1,024 codes too.

As published: no averaged weights, no label dropout. The latter means that
guidance is not trained for; --config.stage.generator.label_dropout=0.1 does.
Each example draws its own task, where the published run drew one for a batch.

Every clip is seen hundreds of times. `input=tokens` reads its ids from records,
which `encode --split=… --tasks=CONFIG` writes, so that a step holds no
tokenizer.
"""

from collections.abc import Mapping
from typing import Any

from magvit_jax import run_config
from magvit_jax.configs import common

SIZES = ("B", "L", "smoke")
INPUTS = ("videos", "tokens")
NETS = {
  "B": dict(layers=12, width=768, heads=12, hidden=3072, remat="none"),
  "L": dict(layers=24, width=1024, heads=16, hidden=4096, remat="dots"),
}
EDITS = (
  "frame_prediction",
  "interpolation",
  "outpaint_central",
  "outpaint_vertical",
  "outpaint_horizontal",
  "outpaint_dynamic",
  "inpaint_central",
  "inpaint_dynamic",
)
TASKS = (*EDITS, "class_cond", "class_cond_frame_prediction")
# How 17-frame clips were sampled by MAGVIT-v2.
V2_SAMPLING = dict(steps=24, choice_temperature=32.0)


def config(
  size: str,
  input: str,
  tokenizer: common.ConfigDict,
  *,
  workdir: str,
  clips: int,
  epochs: Mapping[str, int],
  tasks: Mapping[str, Mapping[str, Any]],
  sampling: Mapping[str, Any],
) -> common.ConfigDict:
  """A generator config over the clips of a tokenizer's config.

  Args:
    size: of SIZES.
    input: of INPUTS.
    tokenizer: config of the tokenizer, which gives the data.
    workdir: where its run is by default.
    clips: training clips of the published run, which give its steps.
    epochs: of the published run, by size.
    tasks: by name, their arguments; all have the same share.
    sampling: changes to common.sampling.
  """
  small = size == "smoke"
  cfg = run_config.base()
  cfg.batch = 256
  cfg.steps = clips // cfg.batch * epochs["B" if small else size]
  cfg.mesh.data, cfg.mesh.fsdp = (1, -1) if size == "L" else (-1, 1)
  cfg.tokenizer = dict(workdir=workdir, fingerprint="")
  cfg.stage = dict(
    name="generator",
    generator=dict(
      name="masked",
      transformer=dict(
        name="bert", **NETS["B" if small else size], dropout=0.1
      ),
      condition="commit",
      loss="all",
      label_dropout=0.0,
      schedule="cosine",
      smoothing=1e-4,
    ),
    tasks={name: {**args, "weight": 1.0} for name, args in tasks.items()},
    weights=dict(loss_tokens=1.0),
    optim=dict(
      name="adamw",
      lr=1e-4,
      warmup=5000,
      schedule="cosine",
      b1=0.9,
      b2=0.96,
      weight_decay=0.045,
      clip=1.0,
    ),
    ema=dict(decay=0.0, warmup=False),
    sampling=common.sampling(**sampling),
    dtype="auto",
    param_dtype="float32",
    accumulate=1,
  )
  cfg.data = tokenizer.data
  # The smallest tokenizers learn from 4 frames, too few for these tasks.
  cfg.data.frames = 16 + cfg.data.frames % 2
  cfg.eval = common.generator_eval(every=5000, batch=64)
  if "frame_prediction" not in tasks:
    del cfg.eval.metrics.prediction, cfg.eval.metrics.prediction_psnr
  cfg.checkpoint = dict(
    every=1000, keep=5, best="eval_cross_entropy", best_mode="min"
  )
  if small:
    cfg = common.small_generator(cfg)
  return common.stored_tokens(cfg) if input == "tokens" else cfg
