"""A tiny tokenizer's workdir, made without training, and configs on it."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from magvit_jax import registry
from magvit_jax.checkpoints import checkpointer
from magvit_jax.files import workdirs
from magvit_jax.quantizers import lfq
from magvit_jax.stages import TrainState
from magvit_jax.tokenizers import build_tokenizer, causal3d

SHAPE = (5, 16, 16, 3)
CLASSES = 10
TASKS = dict(
  class_cond=dict(weight=1.0), frame_prediction=dict(frames=1, weight=1.0)
)
_backbone = {k: v for k, v in causal3d.TINY.items() if k != "latent_dim"}
TOKENIZER = dict(
  backbone=dict(name="causal3d", **_backbone),
  quantizer=dict(name="lfq", **lfq.TINY),
  dtype="float32",
)
STAGE = dict(
  name="generator",
  generator=dict(
    name="masked",
    transformer=dict(name="modern", layers=1, width=24, heads=2, hidden=16),
    condition="hard",
  ),
  tasks=TASKS,
  weights=dict(loss_tokens=1.0),
  optim=dict(name="adamw", lr=1e-2, warmup=1, clip=1.0),
  ema=dict(decay=0.9, warmup=True),
  sampling=dict(steps=2),
  dtype="float32",
)
DATA = dict(
  name="moving_digits", frames=SHAPE[0], size=SHAPE[1:3], eval_clips=3
)
METRICS = dict(cross_entropy={}, prediction={}, prediction_psnr={})


def tokenizer_params(seed=0):
  """Fresh weights, with noise so that ids differ from place to place."""
  module = build_tokenizer(TOKENIZER)
  video = jnp.zeros((1, *SHAPE))

  @jax.jit
  def make(key):
    params = module.init(key, video)["params"]
    return jax.tree.map(
      lambda p: p + 0.3 * jax.random.normal(key, p.shape), params
    )

  return make(jax.random.key(seed))


def base(stage, **changes):
  return dict(
    seed=0,
    steps=2,
    batch=2,
    stage=stage,
    data=DATA,
    loader=dict(threads=0, prefetch=1),
    eval=dict(every=0, batch=2, metrics=METRICS),
    checkpoint=dict(every=0, keep=1, best="none", best_mode="max"),
    log=dict(every=1),
    mesh=dict(data=-1, fsdp=1, context=1, tensor=1),
    init_from="",
    inflate="none",
    **changes,
  )


def tokenizer_stage():
  return dict(
    name="tokenizer",
    discriminator=dict(name="none"),
    weights=dict(loss_l2=1.0),
    ramps={},
    optim=dict(name="adamw", lr=1e-3),
    ema=dict(decay=0.9, warmup=True),
    **TOKENIZER,
  )


def write_tokenizer(folder, seed=0):
  """A workdir with a config and one checkpoint."""
  folder.mkdir(exist_ok=True)
  workdirs.write_config(folder, base(tokenizer_stage()))
  params = tokenizer_params(seed)
  bad = {"bad": jnp.zeros((), jnp.int32)}
  state = TrainState(jnp.int32(7), {"gen": params}, {}, params, {}, bad)
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(7, state, force=True)
  saver.close()
  return folder


def config(tokenizer, **changes):
  """Config of a generator on the tokenizer in a workdir."""
  own = dict(workdir=str(tokenizer), fingerprint="")
  return ml_collections.ConfigDict({**base(STAGE, tokenizer=own), **changes})


def stage(**changes):
  args = {**STAGE, **changes}
  extra = dict(tokenizer=TOKENIZER, shape=SHAPE, classes=CLASSES)
  return registry.build("stages", args, steps=10, **extra)


def batch(b=3, seed=0):
  rng = np.random.default_rng(seed)
  video = rng.uniform(-1, 1, (b, *SHAPE)).astype(np.float32)
  return dict(
    video=video,
    label=np.arange(b, dtype=np.int32) % CLASSES,
    file=np.arange(b, dtype=np.int32),
    valid=np.ones(b, bool),
    index=np.arange(b, dtype=np.int32),
  )
