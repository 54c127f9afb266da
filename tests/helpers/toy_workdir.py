"""A stage without a network and a workdir that it left, made in a moment."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry
from magvit_jax.checkpoints import checkpointer
from magvit_jax.files import workdirs
from magvit_jax.metrics import box_means
from magvit_jax.stages import Stage, TrainState

GRID = (3, 4, 4)  # of 9 x 16 x 16 videos
SIZE = 16
METRICS = {
  "psnr": {},
  "box_means": {},
  "ssim": {},
  "codebook_usage": {},
  "bits": {},
}
CONFIG = {
  "seed": 0,
  "steps": 400,
  "batch": 2,
  "stage": {
    "name": "tokenizer",
    "backbone": {"name": "toy"},
    "quantizer": {"name": "lfq<b>"},
    "weights": {"l1": 1.0},
  },
  "data": {
    "name": "moving_digits",
    "frames": 9,
    "size": [16, 16],
    "eval_clips": 5,
  },
  "eval": {"every": 100, "batch": 2, "metrics": METRICS},
  "loader": {"threads": 0, "prefetch": 1},
  "checkpoint": {"every": 0, "keep": 1, "best": "none", "best_mode": "max"},
  "log": {"every": 1},
  "mesh": {"data": 1, "fsdp": 1, "context": 1, "tensor": 1},
  "init_from": "",
  "inflate": "none",
}


def predict(state, batch):
  """Box means plus `ema['shift']`, and ids that follow the brightness."""
  video = batch["video"]
  means = box_means.box_means(video, GRID, causal=True)
  recon = 0.3 * means + 0.7 * video + state.ema["shift"]
  level = means.mean(-1)[:, ::4, ::4, ::4]
  ids = jnp.clip((level + 1) / 2 * SIZE, 0, SIZE - 1).astype(jnp.int32)
  return {
    "video": video,
    "recon": jnp.clip(recon, -1, 1),
    "ids": ids[..., None],
    "valid": batch["valid"],
    "file": batch["file"],
  }


def init(key, batch, frozen):
  del key, batch
  params, ema = {"shift": jnp.zeros(())}, {"shift": jnp.zeros(())}
  step, bad = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
  return TrainState(step, params, {}, ema, frozen, {"bad": bad})


def step(state, batch, key):
  """Counts; the loss is the brightness."""
  del key
  loss = jnp.mean(batch["video"]) + 2
  return state._replace(step=state.step + 1), {"loss": loss, "l1": loss}


STAGE = Stage(init, step, {"predict": predict}, {"sizes": (SIZE,)})


def patch(monkeypatch):
  """Makes the registry build the toy for every stage."""
  real = registry.build

  def build(family, cfg, **extra):
    return STAGE if family == "stages" else real(family, cfg, **extra)

  monkeypatch.setattr(registry, "build", build)


def save(folder, step, shift=0.0):
  """A checkpoint of a step."""
  state = init(None, None, {})
  state = state._replace(
    step=jnp.int32(step), ema={"shift": jnp.float32(shift)}
  )
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(step, state, force=True)
  saver.close()


def rows(steps=400):
  """Lines of metrics.jsonl as the loop writes them."""
  rng = np.random.default_rng(0)
  lines = []
  for step in range(2, steps + 1, 2):
    lines.append(
      {
        "step": step,
        "kind": "train",
        "loss": 2 / step**0.5 + 0.02 * rng.random(),
        "l1": 1 / step**0.5,
        "lfq_entropy": 4 - 1 / step,
        "grad_norm": 1 + rng.random(),
        "bad": 0,
        "skipped": 0,
        "data_share": 0.01,
        "examples_per_second": 9.0,
        "seconds_data": 0.01,
        "seconds_step": 0.9,
      }
    )
    if step % 100 == 0:
      score = {"eval_psnr": 15 + step / 50, "eval_psnr_box": 19.5}
      score |= {"eval_ssim": 0.6, "eval_bits_per_pixel": 0.0938}
      score |= {"eval_usage": step / 400, "eval_perplexity": 70.0 + step}
      lines.append({"step": step, "kind": "eval", **score})
  time = {"compile": 30, "data": 4, "step": 300, "eval": 21, "checkpoint": 5}
  for share in (0.4, 0.6):  # the run was stopped once
    seconds = {f"seconds_{k}": v * share for k, v in time.items()}
    lines.append({"step": steps, "kind": "time", **seconds})
  return lines


def write(folder, checkpoints=(400,)):
  """A workdir with config, metrics and checkpoints."""
  folder.mkdir(exist_ok=True)
  workdirs.write_config(folder, CONFIG)
  text = "".join(json.dumps(row) + "\n" for row in rows())
  (folder / "metrics.jsonl").write_text(text)
  for step in checkpoints:
    save(folder, step)
  return folder


def run_predict():
  """The jitted predict and a state for it."""
  return jax.jit(predict), init(None, None, {})
