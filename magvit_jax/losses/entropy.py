"""Entropies of the codes that binary latents stand for, in nats.

With codes in {-1,1}^D and p(code | u) = softmax(-||u - code||^2 / tau), the
bits of a code are independent given u: bit i is 1 with probability
sigmoid(4 u_i / tau). Hence

  E[H(p)]  = sum over bits of the mean binary entropy, exactly;
  H(E[p])  needs the joint of all bits, but as the bits are independent *given*
           u, E[p] over 2^D codes is one matrix product of two tables of half
           codes, P_hi^T P_lo / N, with 2^(D/2) columns each.

MAGVIT-v2 minimises E[H(p)] - H(E[p]): sure about each token, all codes used.
Splitting the bits into groups bounds H(E[p]) from above, and never gives more
than D ln 2: exact <= grouped <= bitwise <= D ln 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from magvit_jax.types import Array

MAX_EXACT_BITS = 20  # the marginal itself is 2^bits floats


def token_entropy(logits: Array) -> Array:
  """Mean entropy of the code of one token.

  Args:
    logits: [n D], log-odds of each bit.

  Returns:
    A scalar in [0, D ln 2]; 0 for n = 0.
  """
  # 1 - p in the textbook form is rounded to 0 under jit; log_sigmoid is not.
  on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  bits = -(jnp.exp(on) * on + jnp.exp(off) * off)
  return _mean(jnp.sum(bits, axis=-1))


def batch_entropy(logits: Array, groups: int = 1) -> Array:
  """Entropy of the mean distribution over codes, H(E[p]).

  Args:
    logits: [n D], log-odds of each bit.
    groups: the bits are cut into that many groups whose entropies are added;
      1 is exact, D is bitwise.

  Returns:
    A scalar in [0, D ln 2]; 0 for n = 0.

  Raises:
    ValueError: groups that do not divide D, or more than 20 bits in a group.
  """
  bits = check_groups(logits.shape[-1], groups)
  parts = logits.reshape(-1, groups, bits)
  return sum(_joint_entropy(parts[:, i]) for i in range(groups))


def check_groups(bits: int, groups: int) -> int:
  """Bits per group; ValueError where they do not divide or are too many."""
  if groups < 1 or bits % groups:
    raise ValueError(
      f"{bits} bits do not divide into {groups} entropy groups; choose a "
      f"divisor of {bits}"
    )
  if bits // groups > MAX_EXACT_BITS:
    raise ValueError(
      f"{bits // groups} bits per entropy group need 2^{bits // groups} "
      f"floats; use at least {-(-bits // MAX_EXACT_BITS)} groups of at most "
      f"{MAX_EXACT_BITS} bits"
    )
  return bits // groups


def _joint_entropy(logits: Array) -> Array:
  """H(E[p]) over the 2^D codes of [n D] log-odds."""
  low = logits.shape[-1] // 2
  mean = _table(logits[:, low:]).T @ _table(logits[:, :low])
  mean = mean / max(len(logits), 1)
  # The derivative of entr is infinite at 0, where sure bits put most codes; a
  # tiny floor cuts it off and adds less than 1e-30 nats.
  return jnp.sum(jnp.where(mean > 1e-37, entr(jnp.maximum(mean, 1e-37)), 0.0))


def _table(logits: Array) -> Array:
  """Probability of each of the 2^D codes, [n D] -> [n 2^D]; bit 0 is lowest."""
  bits = logits.shape[-1]
  codes = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
  codes = codes.astype(np.float32)
  on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  return jnp.exp(on @ codes.T + off @ (1 - codes).T)


def _mean(x: Array) -> Array:
  return jnp.sum(x) / max(x.size, 1)
