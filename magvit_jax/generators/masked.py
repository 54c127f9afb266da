"""Masked token modelling: MaskGIT (arXiv 2202.04200), MAGVIT (2212.05199).

A transformer sees a sequence with some positions replaced by MASK and predicts
them; decoding/maskgit.py samples with it. How a condition enters is chosen by
`condition`, for training and sampling alike:

  'hard'    known positions hold the condition's ids and are never masked.
  'commit'  MAGVIT's COMMIT: known positions are masked like all others, but a
            masked one holds the condition's id instead of MASK, so that the
            condition is a hint to be refined.
  'prefix'  MAGVIT's ablation: the condition's ids stand in front, MASK where
            nothing is known, in a sequence of twice the length; the clip
            itself has no condition.

Of the positions that may be masked, `loss` says which count, each once, by what
the transformer has to do there:

  'mask'    masked, and not condition: to be predicted;
  'refine'  masked, and condition: to be made the clip's own;
  'recons'  not masked: to be given back.

Each example has its own ratio and its own mask (the official code shares both
over the batch of a device). A position has one mask for all its factors.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from magvit_jax import messages, tokenizers, transformers
from magvit_jax.decoding import maskgit, sampling, schedules
from magvit_jax.decoding.maskgit import MaskGIT
from magvit_jax.generators import Generator
from magvit_jax.tasks import TokenCondition
from magvit_jax.types import Array, Key, Metrics, PyTree

CONDITIONS = ("hard", "commit", "prefix")
LOSSES = {
  "mask": ("mask",),
  "mask+refine": ("mask", "refine"),
  "mask+recons": ("mask", "recons"),
  "all": ("mask", "refine", "recons"),
}


def make(
  *,
  sizes: tuple[int, ...],
  grid: tuple[int, int, int],
  classes: int,
  tasks: int,
  transformer: Mapping[str, Any],
  condition: str,
  loss: str = "auto",
  label_dropout: float = 0.1,
  schedule: str = "cosine",
  smoothing: float = 0.0,
  dtype: str = "float32",
) -> Generator:
  """Builds the generator.

  Args:
    sizes: ids per factor of the tokenizer.
    grid: (T, H, W) of its ids.
    classes: number of classes; label `classes` means 'not given'.
    tasks: number of tasks.
    transformer: config of a transformers/ component.
    condition: 'hard', 'commit' or 'prefix'; see the module.
    loss: where the loss is: a key of LOSSES; 'auto' is 'mask' under 'hard' and
      'all' otherwise, as published.
    label_dropout: share of labels that training takes away, for guidance.
    schedule: of the ratios drawn in training and in `score`.
    smoothing: share of the target spread over all ids of a factor.
    dtype: 'auto', 'float32' or 'bfloat16', of the matrix products; logits,
      softmax and loss are float32.

  Raises:
    ValueError: an argument that does not exist or does not fit.
  """
  _check(sizes, grid, classes, tasks, condition)
  if loss == "auto":
    loss = "mask" if condition == "hard" else "all"
  messages.check_choice("masked: loss", loss, LOSSES)
  schedules.check(schedule)
  for name, share in dict(
    label_dropout=label_dropout, smoothing=smoothing
  ).items():
    if not 0.0 <= share < 1.0:
      raise ValueError(f"masked: {name} is {share}; it must lie in [0, 1)")
  model = transformers.build_model(
    transformer,
    sizes=sizes,
    classes=classes,
    tasks=tasks,
    dtype=tokenizers.compute_dtype(dtype),
  )
  own = _Masked(
    model, grid, condition, loss, label_dropout, schedule, smoothing
  )
  return Generator(own.init, own.loss, own.sample, own.trace, own.score)


def draw_mask(
  key: Key, candidates: Array, schedule: str
) -> tuple[Array, Array]:
  """Masks floor(gamma(r) N) of N candidates, at least one; r ~ U(0, 1).

  Args:
    key: drawn from for r and for the positions, per example.
    candidates: bool [b n].
    schedule: a mask schedule.

  Returns:
    bool [b n], and its count int32 [b] (0 where there is no candidate).
  """
  ratio, place = jax.random.split(key)
  total = jnp.sum(candidates, axis=1)
  r = jax.random.uniform(ratio, total.shape)
  share = schedules.gamma(schedule, r, total)
  count = jnp.floor(share * total).astype(jnp.int32)
  count = jnp.minimum(jnp.maximum(count, 1), total)
  values = jax.random.uniform(place, candidates.shape)
  values = jnp.where(candidates, values, jnp.inf)
  return maskgit.lowest(values, count), count


def visible(
  ids: Array, cond: TokenCondition, masked: Array, mask: Array, hard: bool
) -> Array:
  """What the transformer sees of a clip under a mask.

  Args:
    ids: int32 [b T H W f], the clip.
    cond: its condition.
    masked: bool [b T H W]; under 'hard' never true where known.
    mask: int32 [f], the MASK ids.
    hard: whether the condition is 'hard', else 'commit'.
  """
  known, masked = cond.known[..., None], masked[..., None]
  if hard:
    return jnp.where(masked, mask, jnp.where(known, cond.ids, ids))
  hidden = jnp.where(known, cond.ids, mask)
  return jnp.where(masked, hidden, ids)


def counted(loss: str, masked: Array, known: Array, maskable: Array) -> Array:
  """Where the loss is, all bool [b T H W]; `loss` is a key of LOSSES."""
  parts = {
    "mask": masked & ~known,
    "refine": masked & known,
    "recons": maskable & ~masked,
  }
  return functools.reduce(jnp.logical_or, (parts[p] for p in LOSSES[loss]))


def cross_entropy(logits: tuple[Array, ...], ids: Array) -> Array:
  """-log p of ids [… f] in nats, summed over factors -> float32 [...]."""
  return -sampling.log_prob(logits, ids)


def spread(logits: tuple[Array, ...]) -> Array:
  """Cross-entropy of a uniform target, summed over factors -> [...]."""
  return -sum(
    jnp.mean(jax.nn.log_softmax(factor, axis=-1), axis=-1) for factor in logits
  )


class _Masked:
  """The functions of a Generator, closed over what does not change."""

  def __init__(
    self, model, grid, condition, loss, dropout, schedule, smoothing
  ):
    self.model: transformers.TokenModel = model
    self.grid = tuple(grid)
    self.hard, self.prefix = condition == "hard", condition == "prefix"
    self.where, self.dropout, self.schedule = loss, dropout, schedule
    self.smoothing = smoothing

  def init(self, key: Key, ids: Array, cond: TokenCondition) -> PyTree:
    """Fresh parameters."""
    self._check_ids(ids, "ids")
    shown = self._shown(ids, cond)
    return self.model.init(key, shown, cond.label, cond.task)["params"]

  def loss(
    self, params: PyTree, ids: Array, cond: TokenCondition, key: Key
  ) -> tuple[Array, Metrics]:
    """Mean over an example's positions, then over examples, in nats.

    Metrics: 'nats', the same without label smoothing; 'accuracy', positions
    of which every factor is guessed; 'masked', the share of positions masked.
    """
    mask, drop, net = jax.random.split(key, 3)
    gone = jax.random.bernoulli(drop, self.dropout, cond.label.shape)
    label = jnp.where(gone, self.model.classes, cond.label)
    logits, masked = self._forward(
      params, ids, cond._replace(label=label), mask, net
    )
    known = self._inside(cond)
    carries = counted(self.where, masked, known, self._maskable(known))
    nats = cross_entropy(logits, ids)
    smoothed = nats
    if self.smoothing:
      smoothed = (1 - self.smoothing) * nats + self.smoothing * spread(logits)
    guess = jnp.stack([jnp.argmax(x, axis=-1) for x in logits], axis=-1)
    hit = jnp.all(guess == ids, axis=-1).astype(jnp.float32)
    return _mean(smoothed, carries), {
      "nats": _mean(nats, carries),
      "accuracy": _mean(hit, carries),
      "masked": jnp.mean(masked.astype(jnp.float32)),
    }

  def score(
    self, params: PyTree, ids: Array, cond: TokenCondition, key: Key
  ) -> dict[str, Array]:
    """Masks as in training; scores what is masked and not condition."""
    logits, masked = self._forward(params, ids, cond, key, None)
    scored = masked & ~cond.known
    nats = jnp.where(scored, cross_entropy(logits, ids), 0.0)
    return {
      "nats": jnp.sum(nats, axis=(1, 2, 3)),
      "positions": jnp.sum(scored, axis=(1, 2, 3), dtype=jnp.float32),
      "scored": scored,
    }

  def sample(
    self, params: PyTree, cond: TokenCondition, key: Key, method: MaskGIT
  ) -> Array:
    """Ids int32 [b T H W f] of the condition, without MASK."""
    return self._decode(params, cond, key, method)[0]

  def trace(
    self, params: PyTree, cond: TokenCondition, key: Key, method: MaskGIT
  ) -> maskgit.Trace:
    """Ids int32 [steps b T H W f] and what was masked again after a step."""
    return self._decode(params, cond, key, method)[1]

  def _decode(self, params, cond, key, method):
    """(ids, Trace) with positions as grids."""
    self._check_ids(cond.ids, "cond.ids")
    known = self._inside(cond)
    start = maskgit.Start(
      given=self._hint(cond, known),
      fixed=cond.ids,
      unknown=self._maskable(known),
    )
    flat = jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[4:]), start)
    ids, trace = maskgit.decode(
      method, self._predictor(params, cond, method.guidance > 0), flat, key
    )
    steps = jax.tree.map(
      lambda x: x.reshape(*x.shape[:2], *self.grid, *x.shape[3:]), trace
    )
    return ids.reshape(cond.ids.shape), steps

  def _forward(self, params, ids, cond, mask_key, net_key):
    """Masks, predicts; logits and the mask bool [b T H W]."""
    self._check_ids(ids, "ids")
    known = self._inside(cond)
    maskable = self._maskable(known).reshape(len(ids), -1)
    masked, _ = draw_mask(mask_key, maskable, self.schedule)
    masked = masked.reshape(known.shape)
    inside = cond._replace(known=known)
    seen = visible(ids, inside, masked, self._mask_ids(), self.hard)
    return self._apply(params, seen, cond, net_key), masked

  def _apply(self, params, seen, cond, key=None):
    """Logits [b T H W size] per factor of what is seen of a clip."""
    shown = self._shown(seen, cond)
    logits = self.model.apply(
      {"params": params}, shown, cond.label, cond.task, key=key
    )
    return tuple(x[:, -self.grid[0] :] for x in logits)

  def _shown(self, seen, cond):
    """The whole sequence: under 'prefix' the condition goes before the clip."""
    if not self.prefix:
      return seen
    return jnp.concatenate([self._hint(cond, cond.known), seen], axis=1)

  def _hint(self, cond, known):
    """The condition's ids where known, MASK elsewhere."""
    return jnp.where(known[..., None], cond.ids, self._mask_ids())

  def _inside(self, cond):
    """Positions of the clip that hold a condition."""
    return jnp.zeros_like(cond.known) if self.prefix else cond.known

  def _maskable(self, known):
    return ~known if self.hard else jnp.ones_like(known)

  def _predictor(self, params, cond, guided):
    """(ids [b n f], guidance) -> logits [b n size] per factor."""
    b = len(cond.label)
    free = cond._replace(label=jnp.full_like(cond.label, self.model.classes))
    both = jax.tree.map(lambda *x: jnp.concatenate(x), cond, free)

    def apply(ids, cond):
      grids = ids.reshape(-1, *self.grid, ids.shape[-1])
      logits = self._apply(params, grids, cond)
      return tuple(x.reshape(len(ids), -1, x.shape[-1]) for x in logits)

    def guide(ids, guidance):
      logits = apply(jnp.concatenate([ids, ids]), both)
      own, without = [x[:b] for x in logits], [x[b:] for x in logits]
      return sampling.guide(own, without, guidance)

    return guide if guided else lambda ids, _: apply(ids, cond)

  def _mask_ids(self) -> Array:
    return jnp.asarray(self.model.sizes, jnp.int32)

  def _check_ids(self, ids: Array, name: str) -> None:
    want = (*self.grid, len(self.model.sizes))
    if ids.shape[1:] != want:
      raise ValueError(
        f"masked: {name} are {ids.shape}; this generator was made for "
        f"[b, {', '.join(map(str, want))}] (T, H, W, factors): use the "
        "tokenizer and the clip size it was trained with"
      )


def _mean(values: Array, where: Array) -> Array:
  """Mean over positions [b T H W], then over examples that have any."""
  count = jnp.sum(where, axis=(1, 2, 3))
  total = jnp.sum(jnp.where(where, values, 0.0), axis=(1, 2, 3))
  means = total / jnp.maximum(count, 1)
  return jnp.sum(means) / jnp.maximum(jnp.sum(count > 0), 1)


def _check(sizes, grid, classes, tasks, condition) -> None:
  if not sizes:
    raise ValueError(
      "masked: the tokenizer has no ids (its sizes are ()); choose a discrete "
      "quantizer, such as lfq or fsq"
    )
  if len(grid) != 3 or min(grid) < 1:
    raise ValueError(f"masked: grid is {grid}; it is (T, H, W), all positive")
  if classes < 0 or tasks < 1:
    raise ValueError(
      f"masked: classes is {classes} and tasks {tasks}; there are 0 or more "
      "classes and at least 1 task"
    )
  messages.check_choice("masked: condition", condition, CONDITIONS)


TINY = dict(
  sizes=(5, 7),
  grid=(3, 2, 2),
  classes=3,
  tasks=2,
  transformer=dict(name="modern", layers=2, width=24, heads=2, hidden=32),
  condition="hard",
)
