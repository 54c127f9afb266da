"""What a workdir holds, ready to run."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from magvit_jax.checkpoints import saved_weights
from magvit_jax.inference import prompts, sampler, video_codec


class Models(NamedTuple):
  """What the page runs.

  Attributes:
    title: of the page.
    tokenizer: a `Codec`.
    generator: a `Sampler` on its tokens, or None.
    shape: (t, h, w, 3) of the clips they were trained on.
  """

  title: str
  tokenizer: Any
  generator: Any
  shape: tuple[int, int, int, int]


def load(folder: str | os.PathLike[str], *, step: int | None = None) -> Models:
  """Loads a tokenizer, or a generator with its tokenizer.

  Args:
    folder: workdir of either, an export of one, or what `convert` wrote.
    step: checkpoint to load; None takes the newest whole one.

  Raises:
    FileNotFoundError: no such workdir, or it has no checkpoint.
    ValueError: a run of another stage.
  """
  config = saved_weights.config(folder)
  title = os.fspath(folder)
  if config["stage"]["name"] == "generator":
    gen = sampler.load_generator(folder, step=step)
    return Models(title, gen.tokenizer, gen, gen.shape)
  tokenizer = video_codec.load_tokenizer(folder, step=step)
  return Models(title, tokenizer, None, clip_shape(tokenizer, config))


def clip_shape(tok: Any, config: Mapping[str, Any]) -> tuple[int, ...]:
  """(t, h, w, 3) of the clips of a run; what was converted has none of its own.

  Args:
    tok: a `Codec`.
    config: of its folder.
  """
  _, sh, sw = tok.strides
  own = {"frames": tok.frames(2), "size": (8 * sh, 8 * sw)}
  data = own | config.get("data", {})
  return (data["frames"], *data["size"], 3)


def warm_up(models: Models, say: Callable[[str], None] = print) -> None:
  """Compiles what the first visitor would wait for.

  Args:
    models: as loaded.
    say: is told what goes on.
  """
  tok, gen = models.tokenizer, models.generator
  clip = np.zeros(models.shape, np.uint8)
  size = "x".join(map(str, models.shape[:3]))
  say(f"compiling the tokenizer for clips of {size} …")
  tok.decode(tok.encode(clip))
  if gen is not None:
    say("compiling the generator …")
    task = next(iter(gen.tasks))
    prompt = prompts.by_task(gen.model, task, clip)
    gen.decode(gen.complete(prompt, gen.label_numbers(None, 1)))
