"""A pre-norm transformer as language models have them now.

RMSNorm before each branch, 3-D rotary positions, queries and keys normalised
per head, SwiGLU, no biases. The layers are one nn.scan: their parameters are
stacked on the first axis, and compiling costs the same at any depth.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import sharding
from magvit_jax.nn import attention, dense, rotary, stack
from magvit_jax.nn import turn as turns
from magvit_jax.nn.norm import RMSNorm, Scale
from magvit_jax.types import Array, Key


class Block(nn.Module):
  """Attention and SwiGLU; the signature is that of nn.scan.

  Attributes:
    heads: attention heads.
    hidden: width inside SwiGLU.
    dropout: share of each branch's output that is dropped in training.
    branches: branches of the whole stack; the output layers start smaller by
      its root, so that the sum of all of them starts at unit size.
    dtype: of the matrix products.
  """

  heads: int
  hidden: int
  dropout: float
  branches: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Array, key: Key | None, angles: Array
  ) -> tuple[Array, None]:
    first, second = stack.drops(x.shape, self.dropout, key)
    h = self._attend(RMSNorm(name="norm_attention")(x), angles)
    x = sharding.split_tokens(x + first(h))
    h = self._mlp(RMSNorm(name="norm_mlp")(x))
    return sharding.split_tokens(x + second(h)), None

  def _attend(self, x: Array, angles: Array) -> Array:
    d = x.shape[-1]
    q, k, v = dense.QueriesKeysValues(self.heads, self.dtype, name="qkv")(x)
    turn = turns.Turn(
      query=Scale(q.shape[-1], name="norm_q")(),
      key=Scale(q.shape[-1], name="norm_k")(),
      angles=angles,
    )
    h = attention.attend(q, k, v, turn=turn)
    return self._out(d, "out")(h.reshape(x.shape))

  def _mlp(self, x: Array) -> Array:
    gate = dense.Dense(self.hidden, self.dtype, name="gate")(x)
    up = dense.Dense(self.hidden, self.dtype, name="up")(x)
    return self._out(x.shape[-1], "down")(jax.nn.silu(gate) * up)

  def _out(self, width: int, name: str) -> nn.Module:
    init = nn.initializers.variance_scaling(
      1.0 / self.branches, "fan_in", "truncated_normal"
    )
    return dense.Dense(width, self.dtype, init, name=name)


class Transformer(nn.Module):
  """The stack; see the contract in transformers/__init__.py.

  Attributes:
    layers: number of blocks.
    width: channels of a token.
    heads: attention heads; they divide the width.
    hidden: width inside SwiGLU; 8/3 of the width has the parameters of the
      usual perceptron of four times the width.
    dropout: share of each branch's output that is dropped in training.
    remat: what training keeps for the backward pass: 'none' (everything),
      'dots' or 'full' (recompute all).
    base: of the rotary positions; see nn/rotary.py.
    dtype: of the matrix products.
  """

  layers: int
  width: int
  heads: int
  hidden: int
  dropout: float = 0.0
  remat: str = "none"
  base: float = 100.0
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    stack.check("modern", self.width, self.heads, self.dropout, self.remat)
    rotary.frequencies(self.width // self.heads, self.base)

  @nn.compact
  def __call__(
    self, x: Array, positions: Array, *, key: Key | None = None
  ) -> Array:
    angles = rotary.angles(
      jnp.asarray(positions), self.width // self.heads, self.base
    )
    layers = nn.scan(
      stack.remat(Block, self.remat),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, nn.broadcast),
      length=self.layers,
    )(
      self.heads,
      self.hidden,
      self.dropout,
      2 * self.layers,
      self.dtype,
      name="layers",
    )
    keys = None if key is None else jax.random.split(key, self.layers)
    x, _ = layers(sharding.split_tokens(x.astype(self.dtype)), keys, angles)
    return RMSNorm(name="norm")(x)


TINY = dict(layers=2, width=24, heads=2, hidden=32)
