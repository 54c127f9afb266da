"""Products with weights that are stored in parts and used whole.

Flax's own layers leave it to XLA how a weight that is split over `fsdp` meets
its input, and XLA then splits the product; see sharding.gather.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import sharding
from magvit_jax.types import Array

INIT = nn.initializers.lecun_normal()


class Dense(nn.Module):
  """[… c] -> [… width], without a bias.

  Attributes:
    width: channels of the result.
    dtype: of the product.
    kernel_init: initializer of the kernel [c width].
  """

  width: int
  dtype: jnp.dtype
  kernel_init: nn.initializers.Initializer = INIT

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.width)
    kernel = self.param("kernel", self.kernel_init, shape)
    return product(x, kernel, f"{self.name}/kernel", self.dtype)


class QueriesKeysValues(nn.Module):
  """[b n c] -> three arrays [b n heads d], without biases; c = heads * d.

  Three products, as heads of less than 128 channels would leave lanes of a TPU
  empty in one.

  Attributes:
    heads: attention heads.
    dtype: of the products.
  """

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, ...]:
    c = x.shape[-1]
    kernel = self.param("kernel", self._init, c)
    parts = (kernel[:, i].reshape(c, c) for i in range(3))
    flat = (product(x, part, "qkv/part", self.dtype) for part in parts)
    return tuple(y.reshape(*x.shape[:2], self.heads, -1) for y in flat)

  def _init(self, key, c: int) -> Array:
    return INIT(key, (c, 3 * c)).reshape(c, 3, self.heads, c // self.heads)


def product(x: Array, weight: Array, name: str, dtype: jnp.dtype) -> Array:
  """x [… c] times a weight [c k] of a name in sharding.RULES, in `dtype`."""
  weight = sharding.gather(weight.astype(dtype), name)
  contract = (((x.ndim - 1,), (0,)), ((), ()))
  return jax.lax.dot_general(x.astype(dtype), weight, contract)
