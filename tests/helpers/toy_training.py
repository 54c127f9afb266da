"""A stage that learns in a moment, and runs of it through the real loop."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from magvit_jax import optim
from magvit_jax.checkpoints import checkpointer
from magvit_jax.monitoring import incidents
from magvit_jax.stages import Stage, TrainState
from magvit_jax.training import loop


class ToySource:
  """Noise clips of two files; the first is unreadable if asked."""

  files = ("a.mp4", "b.mp4")
  on_corrupt = "replace"
  shape = (3, 12, 12, 3)

  def __init__(self, clips: int, broken: bool = False):
    self.clips, self.broken = clips, broken

  def __len__(self):
    return self.clips

  def clip(self, i, rng):
    if self.broken and i % 2 == 0:
      raise OSError("a.mp4 cannot be read")
    video = rng.integers(0, 256, self.shape).astype(np.uint8)
    return dict(video=video, label=0, file=i % 2, name=self.files[i % 2])


def toy_stage(steps, nan_from=10**6, width=3):
  """Learns a colour matrix; its step uses the key and counts bad steps."""
  tx = optim.make(steps, lr=0.01, warmup=2, clip=1.0)

  def init(key, batch, frozen):
    del batch
    kernel = 0.1 * jax.random.normal(key, (3, width))
    params = {"in": {"kernel": kernel}, "out": {"kernel": kernel.T}}
    zero = jnp.zeros((), jnp.int32)
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(zero, params, tx.init(params), ema, frozen, {"bad": zero})

  def apply(params, video):
    return video @ params["in"]["kernel"] @ params["out"]["kernel"]

  def step(state, batch, key):
    def loss_of(params):
      video = batch["video"]
      noisy = video + 0.1 * jax.random.normal(key, video.shape)
      loss = jnp.mean((apply(params, noisy) - video) ** 2)
      return jnp.where(state.step >= nan_from, jnp.nan, loss)

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    good = jnp.isfinite(loss)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    d = optim.ema_decay(0.9, state.step)
    ema = jax.tree.map(lambda e, p: d * e + (1 - d) * p, state.ema, params)
    new = (params, opt, ema)
    old = (state.params, state.opt, state.ema)
    new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
    bad = jnp.where(good, 0, state.extra["bad"] + 1)
    state = TrainState(state.step + 1, *new, state.frozen, {"bad": bad})
    return state, {
      "loss": loss,
      "loss_l2": loss,
      "draw": jax.random.uniform(key),
    }

  def predict(state, batch):
    recon = jnp.clip(apply(state.ema, batch["video"]), -1.0, 1.0)
    keep = {k: batch[k] for k in ("video", "valid", "file")}
    return {**keep, "recon": recon}

  return Stage(init, step, {"predict": predict}, {"sizes": ()})


def config(**changes):
  cfg = ml_collections.ConfigDict(
    dict(
      seed=1,
      steps=6,
      batch=4,
      stage=dict(name="toy"),
      data=dict(name="toy"),
      loader=dict(threads=2, prefetch=2),
      eval=dict(every=3, batch=4, metrics=dict(psnr=dict())),
      checkpoint=dict(every=2, keep=2, best="none", best_mode="max"),
      log=dict(every=1),
      mesh=dict(data=-1, fsdp=1, context=1, tensor=1),
      init_from="",
      inflate="none",
    )
  )
  cfg.update(changes)
  return cfg


def parts(cfg, broken=False, **stage):
  return loop.Parts(
    toy_stage(max(cfg.steps, 2), **stage), ToySource(10, broken), ToySource(5)
  )


def train(folder, resume="auto", broken=False, stage=None, **changes):
  cfg = config(**changes)
  return loop.run(cfg, folder, resume, parts(cfg, broken, **(stage or {})))


def rows(folder, kind):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [r for r in map(json.loads, lines) if r["kind"] == kind]


def kinds(folder):
  """(kind, step) of the incidents of a run."""
  return [(row["kind"], row["step"]) for row in incidents.read(folder)]


def final(folder, item="params", **stage):
  state = jax.eval_shape(toy_stage(6, **stage).init, jax.random.key(0), {}, {})
  return checkpointer.load_params(folder, getattr(state, item), item)
