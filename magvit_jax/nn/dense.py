"""Products with weights that are stored in parts and used whole.

Flax's own layers leave it to XLA how a weight that is split over `fsdp` meets
its input, and XLA then splits the product; see sharding.gather.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import sharding
from magvit_jax.nn import kept
from magvit_jax.types import Array

INIT = nn.initializers.lecun_normal()
ZEROS = nn.initializers.zeros


class Dense(nn.Module):
  """[… c] -> [… width].

  Attributes:
    width: channels of the result.
    dtype: of the product.
    kernel_init: initializer of the kernel [c width].
    bias: whether one [width] is added, 0 at the start.
  """

  width: int
  dtype: jnp.dtype
  kernel_init: nn.initializers.Initializer = INIT
  bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.width)
    kernel = self.param("kernel", self.kernel_init, shape)
    bias = self.param("bias", ZEROS, shape[1:]) if self.bias else None
    return product(x, kernel, f"{self.name}/kernel", self.dtype, bias)


class QueriesKeysValues(nn.Module):
  """[b n c] -> three arrays [b n heads d]; c = heads * d.

  Three products, as heads of less than 128 channels would leave lanes of a TPU
  empty in one.

  Attributes:
    heads: attention heads.
    dtype: of the products.
    kernel_init: initializer of the kernel, as one of [c 3c].
    bias: whether one [3 heads d] is added, 0 at the start. That of keys is
      only counted: it changes all logits of a query alike, which no softmax
      sees.
  """

  heads: int
  dtype: jnp.dtype
  kernel_init: nn.initializers.Initializer = INIT
  bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, ...]:
    c = x.shape[-1]
    shape = (3, self.heads, c // self.heads)
    kernel = self.param("kernel", self._init, c, shape)
    biases = (None,) * 3
    if self.bias:
      query, _, value = self.param("bias", ZEROS, shape)
      biases = query, None, value
    flat = (
      product(x, kernel[:, i].reshape(c, c), "qkv/part", self.dtype, bias)
      for i, bias in enumerate(biases)
    )
    return tuple(y.reshape(*x.shape[:2], *shape[1:]) for y in flat)

  def _init(self, key, c: int, shape: tuple[int, ...]) -> Array:
    return self.kernel_init(key, (c, 3 * c)).reshape(c, *shape)


def product(
  x: Array, weight: Array, name: str, dtype: jnp.dtype, bias: Array | None
) -> Array:
  """x [… c] times a weight [c k] of a name in sharding.RULES, in `dtype`.

  A bias of k numbers is added in float32, if there is one: its gradient is a
  sum over all rows, which would lose digits in `dtype`.
  """
  weight = sharding.gather(weight.astype(dtype), name)
  contract = (((x.ndim - 1,), (0,)), ((), ()))
  y = jax.lax.dot_general(x.astype(dtype), weight, contract)
  if bias is not None:
    y = (y + bias.reshape(-1)).astype(dtype)
  return kept.keep(y)
