"""What configs share: the argument after the colon, and the usual defaults."""

from typing import Any

import ml_collections

from magvit_jax.messages import suggest

ConfigDict = ml_collections.ConfigDict


def parse_arg(arg: str | None, **choices: tuple[str, ...]) -> dict[str, str]:
  """Parses 'quantizer=fsq,smoke' against the choices a config offers.

  Args:
    arg: the text after the colon in --config, or None. A word without '='
      stands for the key that offers it.
    **choices: the values each key may take; the first one is the default.

  Returns:
    One value per key.

  Raises:
    ValueError: a key or a value that is not offered.
  """
  chosen = {key: values[0] for key, values in choices.items()}
  offered = "; ".join(f"{k}={'|'.join(v)}" for k, v in choices.items())
  for part in filter(None, (arg or "").split(",")):
    key, _, value = part.rpartition("=")
    wrong = key if key and key not in choices else value
    key = key or next((k for k, v in choices.items() if value in v), "")
    if value not in choices.get(key, ()):
      known = choices.get(key) or [*choices, *sum(choices.values(), ())]
      raise ValueError(
        f"config argument {part!r} is not offered{suggest(wrong, known)}; "
        f"this config takes {offered}"
      )
    chosen[key] = value
  return chosen


def tokenizer_eval(**overrides: Any) -> dict[str, Any]:
  """The `eval` group of a tokenizer config."""
  metrics = ("psnr", "box_means", "ssim", "codebook_usage", "bits")
  return {"metrics": {name: {} for name in metrics}, **overrides}


def adversarial(**overrides: Any) -> dict[str, Any]:
  """The `stage.adversarial` group: arguments of stages.gan.Adversarial."""
  return {
    "loss": "non_saturating",
    "weight": "constant",
    "updates": "simultaneous",
    "r1_every": 1,
    "lecam_decay": 0.999,
    **overrides,
  }


def sampling(**overrides: Any) -> dict[str, Any]:
  """The `stage.sampling` group: arguments of decoding.maskgit.MaskGIT."""
  return {
    "steps": 12,
    "schedule": "cosine",
    "choice_temperature": 4.5,
    "temperature": 1.0,
    "guidance": 0.0,
    "guidance_power": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    **overrides,
  }


def generator_eval(**overrides: Any) -> dict[str, Any]:
  """The `eval` group of a generator config."""
  metrics = ("cross_entropy", "prediction", "prediction_psnr")
  return {"metrics": {name: {} for name in metrics}, **overrides}


def stored_tokens(cfg: ConfigDict) -> ConfigDict:
  """A generator config that reads records of tokens in place of videos."""
  del cfg.data
  cfg.data = dict(name="token_records", train="train.npz", eval="eval.npz")
  # Records hold no pixels.
  metrics = cfg.eval.metrics
  if "prediction_psnr" in metrics:
    del metrics.prediction_psnr
  return cfg


def small_generator(cfg: ConfigDict) -> ConfigDict:
  """A generator config made tiny, for tests: a few steps of a small net."""
  cfg.steps, cfg.batch = 4, 4
  net = cfg.stage.generator.transformer
  net.layers, net.width, net.heads, net.hidden = 2, 48, 2, 64
  cfg.stage.optim.warmup = 1
  cfg.stage.sampling.steps = 3
  cfg.data.eval_clips = 6
  cfg.eval.every = cfg.checkpoint.every = 2
  cfg.eval.batch = 4
  cfg.log.every = 1
  return cfg
