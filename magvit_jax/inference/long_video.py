"""Videos longer than a clip, chunk by chunk, in constant memory.

The last frames of what was made are encoded again as the start of a new clip,
whose ids are the condition of the next chunk (Phenaki, arXiv:2210.02399, goes
on in this way). Ids cannot simply be carried over: a causal tokenizer's first
latent holds one frame and the others several, so that none of these can stand
in the first place. Each chunk is decoded whole; the frames it was given are
left out, those after them are new.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from magvit_jax.inference import prompts


class Chunk(NamedTuple):
  """A piece of a long video.

  Attributes:
    ids: int32 [num T H W f], of the whole clip it comes from.
    video: float32 [num n h w 3] in [-1, 1], the new frames.
  """

  ids: np.ndarray
  video: np.ndarray


def check(gen: Any, frames: int | None, given: int = 0) -> int:
  """The length of a video; ValueError for one that cannot be made.

  Args:
    gen: a `Sampler`.
    frames: of the video; None is that of a clip.
    given: how many of them are given.
  """
  length = gen.shape[0]
  if frames is None:
    return length
  if frames <= given:
    raise ValueError(
      f"frames={frames} leaves nothing to make: {given} of them are given; "
      f"ask for more (a clip has {length})"
    )
  if frames > length and not gen.given_frames():
    raise ValueError(
      f"frames={frames} is longer than a clip of {length}, and this "
      "checkpoint was not trained to go on from frames; its tasks are "
      f"{', '.join(gen.tasks)}"
    )
  return frames


def stream(
  gen: Any,
  prompt: prompts.Prompt,
  labels: np.ndarray,
  *,
  frames: int,
  seed: int,
  method: Mapping[str, Any],
) -> Iterator[Chunk]:
  """Yields a video of `frames` frames in chunks, the given frames included.

  Sample k depends on the seed and on k alone, and what comes first does not
  depend on what follows: a longer video begins with the shorter one.

  Args:
    gen: a `Sampler`.
    prompt: of the first chunk.
    labels: int32 [num], one per sample; kept over the whole video.
    frames: as `check` lets through.
    seed: of the samples.
    method: changes to `gen.method`.
  """
  labelled = bool((labels < len(gen.labels)).any())
  made, number = 0, 0
  kept, shown = 0, np.zeros((len(labels), 0, *gen.shape[1:]), np.float32)
  while True:
    ids = gen.complete(prompt, labels, seed=seed, chunk=number, **method)
    new = gen.decode(ids)[:, kept:]
    yield Chunk(ids, new[:, : frames - made])
    made += new.shape[1]
    if made >= frames:
      return
    # The frames as they were shown, not as this chunk decoded those it was
    # given: these differ a little, and the difference would add up.
    shown = np.concatenate([shown, new], axis=1)[:, -gen.shape[0] :]
    prompt = prompts.continued(gen.model, shown, labelled)
    kept = prompts.prefix(prompt.tables)
    number += 1
