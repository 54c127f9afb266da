"""Residual blocks of causal convolutional nets, layers (x, carry) -> both."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.nn import norm as norms
from magvit_jax.nn.conv import CausalConv, CausalDepthwise
from magvit_jax.nn.layer import Carry
from magvit_jax.types import Array

# What the backward pass keeps of the blocks: all of it, the results of the
# convolutions and the moments of the norms (norms and swish are made again from
# them), or the input of each block only.
REMAT = ("none", "dots", "full")
MOMENTS = jax.checkpoint_policies.save_only_these_names(norms.MOMENTS)


def remat(block: type[nn.Module], policy: str) -> type[nn.Module]:
  """The block under a policy of REMAT; `swish` sees to 'dots'."""
  if policy != "full":
    return block
  return nn.remat(block, policy=jax.checkpoint_policies.nothing_saveable)


def swish(norm: nn.Module, x: Array, policy: str) -> Array:
  """Swish of a norm of x, made again for the gradient if the policy is 'dots'.

  A convolution inside of jax.checkpoint would be kept through an operation that
  XLA does not fuse with it; here its result is the input.
  """

  def target(norm, x):
    return jax.nn.silu(norm(x))

  if policy == "dots":
    target = nn.remat(target, policy=MOMENTS)
  return target(norm, x)


class Residual(nn.Module):
  """Norm, swish, convolution, twice; a 1x1x1 shortcut where the width changes.

  The block of MAGVIT-v2 (and of VQGAN before it).
  """

  features: int
  norm: str = "frame_group"
  pad: str = "zero"
  dtype: jnp.dtype = jnp.float32
  kernel: tuple[int, int, int] = (3, 3, 3)
  remat: str = "none"

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    first, second = (None, None) if carry is None else carry
    conv = dict(pad=self.pad, dtype=self.dtype, kernel=self.kernel)
    h = swish(norms.make(self.norm), x, self.remat)
    h, first = CausalConv(self.features, **conv)(h, first)
    h = swish(norms.make(self.norm), h, self.remat)
    h, second = CausalConv(self.features, **conv)(h, second)
    if x.shape[-1] != self.features:
      x, _ = CausalConv(self.features, kernel=(1, 1, 1), dtype=self.dtype)(x)
    return x + h, (first, second)


class Mixer(nn.Module):
  """Depthwise filter, then a perceptron of four times the width.

  ConvNeXt's block (2201.03545) made causal: most of its work is in matrix
  products, the fastest operation of every machine, and relu in place of gelu,
  whose derivative is dear on CPU. The last layer starts
  at zero, so a deep stack starts as the identity.
  """

  features: int
  norm: str = "position"
  pad: str = "zero"
  dtype: jnp.dtype = jnp.float32
  kernel: tuple[int, int, int] = (3, 3, 3)
  remat: str = "none"  # there is no swish: 'dots' keeps all

  @nn.compact
  def __call__(self, x: Array, carry: Carry = None) -> tuple[Array, Carry]:
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, dtype=self.dtype, name="widen")(x)
    h = norms.make(self.norm)(x)
    conv = dict(pad=self.pad, dtype=self.dtype, kernel=self.kernel)
    near, carry = CausalDepthwise(**conv)(h, carry)
    h = nn.Dense(4 * self.features, dtype=self.dtype, name="up")(h + near)
    h = jax.nn.relu(h)
    h = nn.Dense(
      self.features,
      kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
      name="down",
    )(h)
    return x + h, carry


BLOCKS = {"residual": Residual, "mixer": Mixer}


def find(name: str) -> type[nn.Module]:
  """A block by its name in a config."""
  messages.check_choice("block", name, BLOCKS)
  return BLOCKS[name]
