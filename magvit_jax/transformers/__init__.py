"""Transformers over tokens, for generators. Files here define `Transformer`.

A transformer is a linen Module with a field `width` and

  __call__(x [b n d], positions int32 [n 3], *, key=None) -> [b n d]

where d = width, positions are the (T, H, W) coordinates of the tokens in the
grid (those before the grid have negative ones), and key None is evaluation; a
key draws dropout. The output is normalised and of the field `dtype`. Every
token sees every other. `TokenModel` embeds ids for it and reads logits off it,
or, where the published model does that in its own way, the class `compose` of
the transformer, which has the same fields.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry, sharding
from magvit_jax.nn import embed
from magvit_jax.types import Array, Key

PREFIX = 2  # the task token and the class token


class TokenModel(nn.Module):
  """The one composition of embeddings, a transformer and tied heads.

  The sequence is [task token][class token][T*H*W positions].

  Attributes:
    transformer: a Transformer.
    sizes: number of ids per factor; id sizes[i] is MASK.
    classes: number of classes; label `classes` is 'not given'.
    tasks: number of tasks.
  """

  transformer: nn.Module
  sizes: tuple[int, ...]
  classes: int
  tasks: int

  def setup(self):
    width = self.transformer.width
    self.tokens = embed.FactorisedEmbed(
      self.sizes, width, self.transformer.dtype
    )
    self.task = self.param("task", embed.INIT, (self.tasks, width))
    self.label = self.param("label", embed.INIT, (self.classes + 1, width))

  def __call__(
    self, ids: Array, label: Array, task: Array, *, key: Key | None = None
  ) -> tuple[Array, ...]:
    """Logits of every position.

    Args:
      ids: int32 [b T H W f], with MASK where to predict.
      label: int32 [b], at most `classes`.
      task: int32 [b], below `tasks`.
      key: for dropout; None is evaluation.

    Returns:
      float32 [b T H W size] per factor. A label or task out of range gives NaN.
    """
    dtype = self.transformer.dtype
    x = self.tokens(ids).reshape(len(ids), -1, self.transformer.width)
    prefix = jnp.stack(
      [
        embed.lookup(self.task, task, dtype),
        embed.lookup(self.label, label, dtype),
      ],
      axis=1,
    )
    x = sharding.split_tokens(jnp.concatenate([prefix, x], axis=1))
    x = self.transformer(x, positions(ids.shape[1:4]), key=key)
    x = x[:, PREFIX:].reshape(*ids.shape[:-1], -1)
    return self.tokens.heads(x)


def positions(grid: tuple[int, int, int], prefix: int = PREFIX) -> np.ndarray:
  """int32 [prefix + T*H*W, 3]: the prefix at -prefix … -1, then the grid."""
  axes = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
  inner = np.stack(axes, axis=-1).reshape(-1, 3)
  before = np.repeat(np.arange(-prefix, 0)[:, None], 3, axis=1)
  return np.concatenate([before, inner]).astype(np.int32)


def build_model(
  transformer: Mapping[str, Any],
  *,
  sizes: tuple[int, ...],
  classes: int,
  tasks: int,
  dtype: jnp.dtype,
) -> nn.Module:
  """A TokenModel, or what takes its place, over the configured transformer."""
  module = registry.build("transformers", transformer, dtype=dtype)
  compose = getattr(module, "compose", TokenModel)
  return compose(module, tuple(sizes), classes, tasks)
