"""Runs that nobody trained: a config, and rows as a healthy GAN leaves them."""

import collections
import json
import math

import numpy as np

from magvit_jax import doctor, registry
from magvit_jax.discriminators import patch3d
from magvit_jax.files import workdirs
from magvit_jax.monitoring import metric_writer
from magvit_jax.quantizers import lfq
from magvit_jax.tokenizers import causal3d

STEPS, EVERY = 4000, 40
BACKBONE = {k: v for k, v in causal3d.TINY.items() if k != "latent_dim"}


def config(**changes):
  """The config; a change is named as in 'stage__optim__lr'."""
  cfg = {
    "seed": 0,
    "steps": STEPS,
    "batch": 128,
    "stage": {
      "name": "tokenizer",
      "backbone": {"name": "causal3d", **BACKBONE},
      "quantizer": {"name": "lfq", **lfq.TINY},
      "discriminator": {"name": "patch3d", **patch3d.TINY},
      "adversarial": {"loss": "non_saturating"},
      "perceptual": {"name": "lpips"},
      "weights": {
        "loss_l2": 1.0,
        "loss_perceptual": 0.1,
        "loss_entropy": 0.1,
        "loss_commitment": 0.25,
        "g_adversarial": 0.1,
        "d_adversarial": 1.0,
        "d_r1": 40.0,
      },
      "ramps": {},
      "optim": {
        "name": "adam",
        "lr": 1e-4,
        "warmup": 100,
        "schedule": "cosine",
        "clip": 1.0,
      },
      "ema": {"decay": 0.999, "warmup": True},
      "dtype": "float32",
      "accumulate": 1,
    },
    "data": {
      "name": "moving_digits",
      "frames": 3,
      "size": [16, 16],
      "eval_clips": 64,
    },
    "eval": {"every": 1000},
    "loader": {"threads": 2},
    "checkpoint": {"every": 1000, "keep": 2},
    "log": {"every": EVERY},
    "init_from": "",
  }
  for name, value in changes.items():
    *outer, last = name.split("__")
    group = cfg
    for key in outer:
      group = group[key]
    group[last] = value
  return cfg


def terms(step):
  """A healthy row of training, noise included."""
  noise = np.random.default_rng(step).uniform(0.9, 1.1, 4)
  left = math.exp(-step / 800)
  return {
    "bad": 0.0,
    "loss": 0.1 + left,
    "loss_l2": (0.02 + 0.2 * left) * noise[0],
    "loss_perceptual": (0.1 + 0.4 * left) * noise[1],
    "loss_entropy": -1.5 - 0.8 * (1 - left),
    "loss_commitment": 0.4,
    "entropy_token": 0.4 + 0.5 * left,
    "entropy_batch": 2.6 - 0.8 * left,
    "entropy_saturated": 0.3,
    "g_adversarial": 0.9 * noise[2],
    "d_adversarial": 1.15 * noise[3],
    "d_r1": 0.01,
    "logit_real": 0.4,
    "logit_fake": -0.4,
    "loss_discriminator": 1.6,
    "grad_norm_gen": (0.2 + 0.5 * left) * noise[1],
    "grad_norm_disc": 0.7 * noise[2],
    "examples_per_second": 50.0 * noise[0],
    "data_share": 0.02,
    "seconds_step": 2.5,
    "skipped": 0,
  }


def scores(step):
  """A healthy row of evaluation."""
  return {
    "eval_psnr": 20 + step / 1000,
    "eval_psnr_box": 19.0,
    "eval_usage": 0.9,
    "eval_perplexity": 3.4,
  }


TIMES = dict(seconds_compile=40.0, seconds_step=9000.0, goodput=0.95)


def write(
  folder,
  *,
  rows=None,
  evals=None,
  times=TIMES,
  upto=STEPS,
  cfg=None,
  done=True,
):
  """A workdir whose rows went through the writer of the loop.

  Args:
    folder: where.
    rows: step -> what differs from `terms`.
    evals: step -> what differs from `scores`.
    times: the row of times.
    upto: the last step.
    cfg: changes of `config`.
    done: whether DONE is there.
  """
  workdirs.check_writable(folder)
  workdirs.write_config(folder, config(**(cfg or {})))
  out = metric_writer.Writer(folder, steps=STEPS, start=0)
  for step in range(EVERY, upto + 1, EVERY):
    out.write(step, "train", terms(step) | (rows(step) if rows else {}))
    if step % 1000 == 0:
      out.write(step, "eval", scores(step) | (evals(step) if evals else {}))
  out.write(upto, "time", times)
  out.close()
  if done:
    workdirs.mark_done(folder, upto)
  return folder


def found(folder, name):
  """What one check says of a workdir."""
  return registry.load("doctor", name)(doctor.Run(folder))


def worse(findings):
  """Those that are not ok."""
  return [f for f in findings if f.severity != "ok"]


def note(folder, *rows):
  """Writes incidents (process, step, kind, facts), a minute apart."""
  for minute, (process, step, kind, facts) in enumerate(rows):
    name = f"incidents_{process}" if process else "incidents"
    time = f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00+00:00"
    row = {"time": time, "step": step, "kind": kind, **START[kind], **facts}
    with (folder / f"{name}.jsonl").open("a") as file:
      file.write(json.dumps(row) + "\n")
  return folder


START = collections.defaultdict(
  dict, start={"mark": "", "processes": 1, "files": 1000}
)
