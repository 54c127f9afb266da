"""MAGVIT's transformer (arXiv 2212.05199, appendix B): BERT, norm after branch.

Learned positions, tanh-GELU, biases everywhere, layer norms with eps 1e-12, and
the head of masked language models (dense, GELU, norm) before logits tied to the
word table. Ids, classes, tasks and MASK are words of one vocabulary. The layers
are one nn.scan, as in modern.py.

Sizes, as layers/width/hidden/heads: B 12/768/3072/12, L 24/1024/4096/16. With
1024 codes in 4x16x16 positions the number of weights is the published code's:
87,301,991 (B) and 305,567,847 (L) for the 101 classes of UCF-101 alone,
87,224,322 and 305,464,322 for frame prediction on BAIR, 87,236,625 and
305,480,721 for several tasks on it.

Two differences from that code: the attention's weights are not dropped out (no
fused attention can), and special words count up from the last class, where it
has negative ids, which wrap to the end of the table.
"""

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import sharding, transformers
from magvit_jax.nn import attention, dense, kept, stack
from magvit_jax.types import Array, Key

INIT = nn.initializers.truncated_normal(0.02)
EPS = 1e-12  # of the norms, which compute in float32
SLOTS = 16  # special words where there are several tasks: MASK and 15 tasks


class Words(NamedTuple):
  """Numbers of words in the vocabulary; those of a kind follow each other.

  Attributes:
    codes: the first id of each factor.
    label: class 0; 'not given' comes after the last class.
    mask: MASK, one for all factors.
    task: task 0; there is none if there is one task only.
    count: size of the vocabulary.
  """

  codes: tuple[int, ...]
  label: int
  mask: int
  task: int
  count: int


def words(sizes: tuple[int, ...], classes: int, tasks: int) -> Words:
  """The vocabulary.

  Args:
    sizes: ids per factor.
    classes: number of classes.
    tasks: number of tasks; for one alone there is no task word.

  Raises:
    ValueError: more tasks than slots.
  """
  if tasks >= SLOTS:
    raise ValueError(
      f"bert: there are {tasks} tasks; its vocabulary has words for "
      f"{SLOTS - 1}: train on fewer, or use the transformer 'modern'"
    )
  codes = tuple(sum(sizes[:i]) for i in range(len(sizes)))
  label = sum(sizes)
  mask = label + classes + 1
  slots = 1 if tasks == 1 else SLOTS
  return Words(codes, label, mask, mask + 1, mask + slots)


class Model(nn.Module):
  """Ids, class and task as words, the transformer, and logits of the ids.

  The sequence is [task, if there are several][class][T*H*W positions]. A
  position with several factors is the sum of their words. It takes the place of
  transformers.TokenModel, with the same fields.
  """

  transformer: nn.Module
  sizes: tuple[int, ...]
  classes: int
  tasks: int

  def setup(self):
    self.words = words(self.sizes, self.classes, self.tasks)
    shape = (self.words.count, self.transformer.width)
    self.embedding = self.param("embedding", INIT, shape)
    self.bias = self.param("bias", nn.initializers.zeros, shape[:1])

  def __call__(
    self, ids: Array, label: Array, task: Array, *, key: Key | None = None
  ) -> tuple[Array, ...]:
    """Logits of every position; arguments as those of TokenModel."""
    prefix = [self._word(self.words.label, label, self.classes + 1)]
    if self.tasks > 1:
      prefix.insert(0, self._word(self.words.task, task, self.tasks))
    prefix = self._rows(jnp.stack(prefix, axis=1))
    x = self._embed(ids).reshape(len(ids), -1, prefix.shape[-1])
    x = sharding.split_tokens(jnp.concatenate([prefix, x], axis=1))
    before = prefix.shape[1]
    x = self.transformer(
      x, transformers.positions(ids.shape[1:4], before), key=key
    )
    x = x[:, before:].reshape(*ids.shape[:-1], -1)
    return tuple(
      self._logits(x, first, size)
      for first, size in zip(self.words.codes, self.sizes, strict=True)
    )

  def _embed(self, ids: Array) -> Array:
    """int32 ids [… f], with MASK as the id after the last -> [… d]."""
    rows = []
    for i, (first, size) in enumerate(
      zip(self.words.codes, self.sizes, strict=True)
    ):
      own = ids[..., i]
      code = self._word(first, own, size)
      rows.append(self._rows(jnp.where(own == size, self.words.mask, code)))
    return sum(rows)

  def _word(self, first: int, index: Array, count: int) -> Array:
    """first + index; beyond the vocabulary if it is not one of `count`."""
    fits = (index >= 0) & (index < count)
    return jnp.where(fits, first + index, self.words.count)

  def _rows(self, numbers: Array) -> Array:
    """Words [...] -> [… d]; NaN beyond the vocabulary."""
    rows = jnp.take(
      self.embedding, numbers, axis=0, mode="fill", fill_value=jnp.nan
    )
    return rows.astype(self.transformer.dtype)

  def _logits(self, x: Array, first: int, size: int) -> Array:
    table = self.embedding[first : first + size].astype(x.dtype)
    table = sharding.gather(table, "embedding")
    bias = self.bias[first : first + size]
    product = jnp.einsum(
      "...d,kd->...k", x, table, preferred_element_type=jnp.float32
    )
    return product + bias


class Layer(nn.Module):
  """Attention and perceptron; the signature is that of nn.scan.

  Attributes:
    heads: attention heads.
    hidden: width inside the perceptron.
    dropout: share of each branch's output that is dropped in training.
    dtype: of the matrix products.
  """

  heads: int
  hidden: int
  dropout: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, key: Key | None) -> tuple[Array, None]:
    first, second = stack.drops(x.shape, self.dropout, key)
    h = first(self._attend(x))
    # The norm needs its input to go back; the branch alone nothing does.
    x = self._norm("norm_attention")(kept.keep(x + h))
    x = sharding.split_tokens(x)
    h = second(self._mlp(x))
    x = self._norm("norm_mlp")(kept.keep(x + h))
    return sharding.split_tokens(x), None

  def _attend(self, x: Array) -> Array:
    q, k, v = dense.QueriesKeysValues(
      self.heads, self.dtype, INIT, bias=True, name="qkv"
    )(x)
    h = attention.attend(q, k, v).reshape(x.shape)
    return self._dense(x.shape[-1], "out")(h)

  def _mlp(self, x: Array) -> Array:
    h = jax.nn.gelu(self._dense(self.hidden, "up")(x))
    return self._dense(x.shape[-1], "down")(h)

  def _norm(self, name: str) -> nn.Module:
    return nn.LayerNorm(EPS, self.dtype, name=name)

  def _dense(self, width: int, name: str) -> nn.Module:
    return dense.Dense(width, self.dtype, INIT, bias=True, name=name)


class Transformer(nn.Module):
  """The stack with the head; see the contract in transformers/__init__.py.

  Positions are learned one by one, so that it serves one grid only.

  Attributes:
    layers: number of layers.
    width: channels of a token.
    heads: attention heads; they divide the width.
    hidden: width inside the perceptron.
    dropout: share of the embeddings and of each branch's output that is
      dropped in training.
    remat: what training keeps for the backward pass: 'none' (everything),
      'dots' or 'full' (recompute all).
    dtype: of the matrix products.
  """

  layers: int
  width: int
  heads: int
  hidden: int
  dropout: float = 0.0
  remat: str = "none"
  dtype: jnp.dtype = jnp.float32

  compose: ClassVar[type[nn.Module]] = Model

  def __post_init__(self):
    super().__post_init__()
    stack.check("bert", self.width, self.heads, self.dropout, self.remat)

  @nn.compact
  def __call__(
    self, x: Array, positions: Array, *, key: Key | None = None
  ) -> Array:
    shape = (len(positions), self.width)
    own, keys = None, None
    if key is not None:
      own, *keys = jax.random.split(key, self.layers + 1)
      keys = jnp.stack(keys)
    x = x + self.param("position", INIT, shape).astype(x.dtype)
    x = stack.drop(
      nn.LayerNorm(EPS, self.dtype, name="norm")(x), self.dropout, own
    )
    layers = nn.scan(
      stack.remat(Layer, self.remat),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=self.layers,
    )(self.heads, self.hidden, self.dropout, self.dtype, name="layers")
    x, _ = layers(sharding.split_tokens(x.astype(self.dtype)), keys)
    head = dense.Dense(self.width, self.dtype, INIT, bias=True, name="head")
    return nn.LayerNorm(EPS, self.dtype, name="norm_head")(jax.nn.gelu(head(x)))


TINY = dict(layers=2, width=24, heads=2, hidden=32)
