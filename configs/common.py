"""What configs share: the argument after the colon, and the usual defaults."""

from typing import Any

import ml_collections

from magvit_jax.registry import suggest

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


def base() -> ConfigDict:
  """The keys that every config has, without stage and data."""
  cfg = ConfigDict()
  cfg.seed = 0
  cfg.loader = dict(threads=2, prefetch=4)
  cfg.mesh = dict(data=-1, fsdp=1, context=1, tensor=1)
  cfg.init_from = ""
  cfg.log = dict(every=20)
  return cfg


def tokenizer_eval(**overrides: Any) -> dict[str, Any]:
  """The `eval` group of a tokenizer config."""
  metrics = ("psnr", "box_means", "ssim", "codebook_usage", "bits")
  return {"metrics": {name: {} for name in metrics}, **overrides}
