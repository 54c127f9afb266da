"""From prompts to ids, and from ids to videos, with a trained generator.

All tasks of a checkpoint share one compiled program per number of samples and
decoding method. Sample k depends on the seed and on k alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import messages
from magvit_jax.decoding import maskgit
from magvit_jax.inference import prompts
from magvit_jax.stages import _generator_model, _prediction_eval
from magvit_jax.stages._generator_model import GeneratorModel
from magvit_jax.tasks import TokenCondition
from magvit_jax.tasks import tables as task_tables
from magvit_jax.types import Key, PyTree, seed_key

CHUNK = 16  # samples decoded at once: memory does not grow with `num`


class Completer:
  """A generator with its tokenizer, and the programs that run them.

  Attributes:
    tokenizer: the `Codec` whose ids it was trained on.
    shape: (t, h, w, 3) of the clips it makes.
    grid: (T, H, W) of their ids.
    labels: names of the classes, in the order of their numbers.
    tasks: `Tables` of the tasks it was trained on, by name.
    model: the last three, which prompts are checked against.
    method: how ids are decoded unless a call says otherwise.
  """

  def __init__(
    self,
    net: GeneratorModel,
    params: PyTree,
    weights: PyTree,
    *,
    tokenizer: Any,
    labels: Sequence[str],
    method: Any,
  ):
    """Puts the parts together; `load_generator` reads them from a workdir.

    Args:
      net: what the stage `generator` builds from a config.
      params: the generator's weights.
      weights: {'tokenizer': params}.
      tokenizer: a `Codec` of them.
      labels: names of the classes.
      method: frozen dataclass of decoding/.
    """
    self.tokenizer, self.labels, self.method = tokenizer, tuple(labels), method
    self.shape, self.grid = net.shape, net.grid
    self.tasks = {
      name: _generator_model.table_of(net.tables, k)
      for k, name in enumerate(net.names)
    }
    self.model = prompts.Model(self.shape, self.grid, self.tasks)
    self._params, self._weights = params, weights

    def encode(weights, video):
      return _generator_model.encode(net, weights, video)

    def condition(weights, video, own):
      rows = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (len(video), *jnp.shape(x))), own
      )
      return encode(weights, task_tables.apply(rows, video).video)

    def decode(weights, ids):
      return _generator_model.decode(net, weights, ids)

    def trace(*args):
      steps = net.generator.trace(*args)
      return jax.tree.map(lambda x: x.swapaxes(0, 1), steps)

    def each(decode):
      def run(params, cond, key, number, method):
        keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(number)
        one = _prediction_eval.each(lambda p, c, k: decode(p, c, k, method))
        return one(params, cond, keys)

      return jax.jit(run, static_argnums=4)

    self._condition = jax.jit(condition)
    self._encode, self._decode = jax.jit(encode), jax.jit(decode)
    self._sample = each(net.generator.sample)
    self._trace = each(trace)

  def complete(
    self,
    prompt: prompts.Prompt,
    labels: np.ndarray,
    *,
    seed: int = 0,
    chunk: int = 0,
    **method: Any,
  ) -> np.ndarray:
    """The ids that every verb is made of.

    Args:
      prompt: of editing.py.
      labels: int32 [num], which a task that was trained without is not told.
      seed: of the samples.
      chunk: which chunk of a long video, each with draws of its own.

    Returns:
      int32 [num T H W f].
    """
    method, key = self._changed(method), _key(seed, chunk)
    made = []
    for part, count in _chunks(np.arange(len(labels))):
      cond = self._token_condition(prompt, labels, part)
      out = self._sample(self._params, cond, key, part, method)
      made.append(np.asarray(out)[:count])
    return np.concatenate(made)

  def trace(
    self,
    prompt: prompts.Prompt,
    labels: np.ndarray,
    *,
    seed: int = 0,
    **method: Any,
  ) -> maskgit.Trace:
    """How the samples of `complete` came about, step by step.

    Args:
      prompt, labels, seed: as in `complete`; at most CHUNK samples.

    Returns:
      ids int32 [num steps T H W f] after each step, and those of them that were
      masked again, bool [num steps T H W].
    """
    method, part = self._changed(method), np.arange(len(labels))
    cond = self._token_condition(prompt, labels, part)
    out = self._trace(self._params, cond, _key(seed, 0), part, method)
    return jax.tree.map(np.asarray, out)

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Ids [num T H W f] to float32 videos [num t h w 3] in [-1, 1]."""
    parts = [
      self._decode(self._weights, padded)[:count]
      for padded, count in _chunks(np.asarray(ids, np.int32))
    ]
    return np.concatenate([np.asarray(part) for part in parts])

  def _token_condition(
    self, prompt: prompts.Prompt, labels: np.ndarray, part: np.ndarray
  ) -> TokenCondition:
    """The condition of the samples whose numbers are in `part`."""
    index = list(self.tasks).index(prompt.task)
    if not self.tasks[prompt.task].label:
      labels = np.full_like(labels, len(self.labels))
    clips = prompt.video if len(prompt.video) == 1 else prompt.video[part]
    ids = self._condition(self._weights, clips, prompt.tables)
    shape = (len(part), *ids.shape[1:])
    return TokenCondition(
      ids=jnp.broadcast_to(ids, shape),
      known=jnp.broadcast_to(prompt.tables.known, shape[:-1]),
      label=jnp.asarray(labels[part]),
      task=jnp.full(len(part), index, jnp.int32),
    )

  def _changed(self, changes: Mapping[str, Any]) -> Any:
    fields = [field.name for field in dataclasses.fields(self.method)]
    for name in changes:
      if name not in fields:
        raise TypeError(
          f"decoding takes no {name!r}{messages.suggest(name, fields)}; it "
          f"takes {', '.join(fields)}"
        )
    return dataclasses.replace(self.method, **changes)


def _key(seed: int, chunk: int) -> Key:
  return jax.random.fold_in(seed_key(seed), chunk)


def _chunks(array: np.ndarray) -> list[tuple[np.ndarray, int]]:
  """Parts of at most CHUNK rows, each with how many of its rows count.

  The last one of many is filled up, so that it runs in the same program.
  """
  if len(array) <= CHUNK:
    return [(array, len(array))]
  parts = [array[i : i + CHUNK] for i in range(0, len(array), CHUNK)]
  last = parts[-1]
  fill = np.repeat(last[-1:], CHUNK - len(last), axis=0)
  return [(p, CHUNK) for p in parts[:-1]] + [
    (np.concatenate([last, fill]), len(last))
  ]
