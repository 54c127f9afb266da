"""Illnesses of a run are named with their cure, and no others are."""

import pytest

from helpers import synthetic_run
from helpers.errors import check_names
from helpers.synthetic_run import found, worse


def const(**values):
  return lambda step: values


def bump(step):
  # The last is no more than the loss of the first steps.
  value = {2000: 9.0, 2400: 9.0, 2800: 0.2}.get(step)
  return {"loss_l2": value} if value else {}


# Check and severity, what the finding names, what its cure names, the illness.
ILLNESSES = {
  "slower": (
    "speed warn",
    ["20 examples/s"],
    [],
    dict(
      rows=lambda step: {"examples_per_second": 20.0} if step > 3000 else {}
    ),
  ),
  "waits": (
    "speed warn",
    ["40%"],
    ["loader.threads=4"],
    dict(rows=const(data_share=0.4)),
  ),
  "evaluates all day": (
    "speed warn",
    ["40%", "2.5 hours", "60%", "eval"],
    ["eval.every=2000"],
    dict(times=dict(seconds_step=3600, seconds_eval=5400, goodput=0.4)),
  ),
  "unreadable": (
    "clips warn",
    [25600, "5.00%"],
    [],
    dict(rows=lambda step: {"skipped": step * 6.4}),
  ),
  "exploding": (
    "gradients warn",
    ["grad_norm_gen"],
    ["stage.optim.lr=3.3e-05"],
    dict(rows=lambda step: {"grad_norm_gen": 0.1 * 1.002**step}),
  ),
  "vanishing": (
    "gradients warn",
    ["grad_norm_gen"],
    ["stage.optim.lr"],
    dict(rows=lambda step: {"grad_norm_gen": 0.1 * 0.997**step}),
  ),
  "clipped": (
    "gradients note",
    ["grad_norm_gen"],
    ["stage.optim.clip=0.75"],
    dict(cfg={"stage__optim__clip": 0.01}),
  ),
  "one side": (
    "gradients note",
    ["grad_norm_gen"],
    ["discriminator"],
    dict(rows=const(grad_norm_disc=5e3), cfg={"stage__optim__clip": 0.0}),
  ),
  "stuck": (
    "loss wrong",
    ["loss_l2", "0.3"],
    [],
    dict(rows=const(loss_l2=0.3)),
  ),
  "outweighed": (
    "loss wrong",
    ["loss_l2"],
    ["stage.weights.loss_l2=5", "1%"],
    dict(rows=const(loss_l2=0.004)),
  ),
  "turned": (
    "loss warn",
    ["loss_l2"],
    ["stage.optim.lr=3.3e-05"],
    dict(rows=lambda step: {"loss_l2": 0.1} if step > 3000 else {}),
  ),
  "spikes": (
    "loss warn",
    [3, 2000, 2400, 2800],
    ["stage.optim.lr=5e-05"],
    dict(rows=bump),
  ),
  "under the floor": (
    "loss warn",
    ["15.00 dB", "19.00 dB"],
    [],
    dict(evals=const(eval_psnr=15.0)),
  ),
  "crawling": (
    "learning_rate wrong",
    ["1e-10"],
    ["stage.optim.lr=0.0001"],
    dict(cfg={"stage__optim__lr": 1e-10}),
  ),
  "warming": (
    "learning_rate warn",
    [3000, 4000],
    ["stage.optim.warmup=200"],
    dict(cfg={"stage__optim__warmup": 3000}),
  ),
  "too fast": (
    "learning_rate warn",
    [3, "loss_l2"],
    ["stage.optim.lr=0.004"],
    dict(rows=bump, cfg={"stage__optim__lr": 0.02}),
  ),
  "too slow for the batch": (
    "learning_rate warn",
    ["1e-05"],
    ["stage.optim.lr=5e-05"],
    dict(rows=const(loss_l2=0.3), cfg={"stage__optim__lr": 1e-5, "batch": 512}),
  ),
  "initial average": (
    "average warn",
    ["67%"],
    ["stage.ema.warmup=True"],
    dict(cfg={"stage__ema": {"decay": 0.9999, "warmup": False}}),
  ),
  "collapsed": (
    "codes wrong",
    ["1.2", 16],
    ["stage.weights.loss_entropy=0.3", "stage.quantizer.temperature=0.1"],
    dict(
      evals=const(eval_usage=0.06, eval_perplexity=1.2),
      cfg={"stage__quantizer": {"name": "lfq", "bits": 4}},
    ),
  ),
  "wasted": (
    "codes warn",
    ["10.0%"],
    ["restart=0.1"],
    dict(
      evals=const(eval_usage=0.1, eval_perplexity=9.0),
      cfg={
        "stage__quantizer": {"name": "vq", "size": 64, "learn": "gradient"},
        "stage__weights": {"loss_l2": 1.0},
      },
    ),
  ),
  "even and void": (
    "entropy wrong",
    ["loss_l2"],
    ["stage.weights.loss_entropy=0.02"],
    dict(rows=const(entropy_batch=2.77, entropy_token=0.01, loss_l2=0.3)),
  ),
  "no gradient": (
    "entropy warn",
    ["0.70", 2.77, 0.01],
    ["stage.quantizer.temperature=0.1"],
    dict(rows=const(entropy_batch=0.7, entropy_saturated=1.0)),
  ),
  "too weak": (
    "entropy warn",
    [0.1],
    ["stage.weights.loss_entropy=0.3"],
    dict(rows=const(entropy_batch=0.7)),
  ),
  "weight 0": (
    "entropy warn",
    [0],
    ["stage.weights.loss_entropy=0.1"],
    dict(
      rows=const(entropy_batch=0.7), cfg={"stage__weights__loss_entropy": 0.0}
    ),
  ),
  "harmless saturation": (
    "entropy note",
    [0.01],
    [],
    dict(rows=const(entropy_saturated=1.0)),
  ),
  "discriminator wins": (
    "discriminator warn",
    ["d_adversarial", 0.05],
    ["stage.weights.d_r1=200"],
    dict(rows=const(d_adversarial=0.05, g_adversarial=6.0)),
  ),
  "and all is lost": (
    "discriminator wrong",
    ["loss_l2"],
    ["stage.weights.d_r1=40"],
    dict(
      rows=lambda step: (
        {"d_adversarial": 0.05, "loss_l2": 0.02 + 1e-4 * step}
        if step > 1000
        else {}
      ),
      cfg={"stage__weights__d_r1": 0.0},
    ),
  ),
  "that of images wins": (
    "discriminator warn",
    ["image_d_adversarial", 0.05],
    ["stage.weights.image_d_r1=40"],
    dict(rows=const(image_d_adversarial=0.05)),
  ),
  "logits apart": (
    "discriminator warn",
    [20],
    ["stage.weights.d_r1=200"],
    dict(rows=const(logit_real=10.0, logit_fake=-10.0)),
  ),
  "discriminator loses": (
    "discriminator warn",
    ["d_adversarial", 1.39],
    ["stage.weights.d_r1=4"],
    dict(rows=const(d_adversarial=1.3863)),
  ),
  "hinge loses": (
    "discriminator warn",
    ["d_adversarial", 2],
    ["stage.weights.d_r1=4"],
    dict(
      rows=const(d_adversarial=2.0), cfg={"stage__adversarial__loss": "hinge"}
    ),
  ),
  "no network in the perceptual loss": (
    "perceptual wrong",
    ["lpips", 0],
    ["convert"],
    dict(rows=const(loss_perceptual=0.0)),
  ),
}


@pytest.mark.parametrize("illness", ILLNESSES)
def test_each_illness_is_named_with_its_cure(tmp_path, illness):
  where, what, cure, made = ILLNESSES[illness]
  name, severity = where.split()
  findings = worse(found(synthetic_run.write(tmp_path, **made), name))
  assert [f.severity for f in findings] == [severity], findings
  check_names(findings[0].what, *what)
  check_names(findings[0].cure, *cure)


LARGE = {"name": "lfq", "bits": 18, "factors": 1}
# What looks ill and is not, by the check that must not be fooled.
WELL = {
  "a vocabulary larger than what is looked at": (
    "codes",
    dict(evals=const(eval_usage=0.02), cfg={"stage__quantizer": LARGE}),
  ),
  "a batch with few tokens has little entropy": (
    "entropy",
    dict(
      rows=const(entropy_batch=6.0, entropy_token=1.0),
      evals=const(eval_usage=0.02),
      cfg={"stage__quantizer": LARGE, "batch": 2},
    ),
  ),
  "an entropy that has all it wants, of a loss that falls": (
    "entropy",
    dict(rows=const(entropy_batch=2.77, entropy_token=0.01)),
  ),
  "a warm start is good from the first row on": (
    "loss",
    dict(rows=const(loss_l2=0.02), cfg={"init_from": "runs/other"}),
  ),
  "the same loss at a large rate": (
    "learning_rate",
    dict(cfg={"stage__optim__lr": 0.01}),
  ),
  "a loss that fell so far has small gradients": (
    "gradients",
    dict(
      rows=lambda step: {
        "loss_l2": 0.997**step,
        "grad_norm_gen": 0.1 * 0.997**step,
        "grad_norm_disc": 0.1 * 0.997**step,
      }
    ),
  ),
  "an average that has had its time": (
    "average",
    dict(cfg={"stage__ema": {"decay": 0.999, "warmup": False}}),
  ),
}


@pytest.mark.parametrize("case", WELL)
def test_what_only_looks_ill_is_no_finding(tmp_path, case):
  name, made = WELL[case]
  findings = found(synthetic_run.write(tmp_path, **made), name)
  assert findings and worse(findings) == []
