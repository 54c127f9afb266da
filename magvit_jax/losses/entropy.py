"""Entropies of the codes that latents stand for, in nats.

Binary codes (lfq, bsq). With codes in {-1,1}^D and
p(code | u) = softmax(-||u - code||^2 / tau), the bits of a code are independent
given u: bit i is 1 with probability sigmoid(4 u_i / tau). Hence

  E[H(p)]  = sum over bits of the mean binary entropy, exactly;
  H(E[p])  needs the joint of all bits, but as the bits are independent *given*
           u, E[p] over 2^D codes is one matrix product of two tables of half
           codes, P_hi^T P_lo / N, with 2^(D/2) columns each.

MAGVIT-v2 minimises E[H(p)] - H(E[p]): sure about each token, all codes used.
Splitting the bits into groups bounds H(E[p]) from above, and never gives more
than D ln 2: exact <= grouped <= bitwise <= D ln 2.

Grids (fsq). The same holds for any product of small alphabets, with one
softmax per number in place of a sigmoid per bit.

Tables (ibq, vq). p(code | z) = softmax(z . codes / tau), or of distances, has
no such structure; the [n K] distribution is made a chunk of latents at a time
and made again for the gradient.

Under jit every mean is that of the global batch, however it is sharded.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from magvit_jax.types import Array, known

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


def grid_token_entropy(log_probs: Sequence[Array]) -> Array:
  """Mean entropy of the code of one token of a grid.

  Args:
    log_probs: for each of the D numbers of a latent its [n L_i] log
      probabilities of the levels.

  Returns:
    A scalar in [0, sum of ln L_i]; 0 for n = 0.
  """
  rows = sum(-jnp.sum(jnp.exp(p) * p, axis=-1) for p in log_probs)
  return _mean(rows)


def grid_batch_entropy(log_probs: Sequence[Array], groups: int = 1) -> Array:
  """Entropy of the mean distribution over the codes of a grid.

  Args:
    log_probs: as in `grid_token_entropy`.
    groups: the D numbers are cut into that many groups whose entropies are
      added; 1 is exact.

  Returns:
    A scalar in [0, sum of ln L_i]; 0 for n = 0.

  Raises:
    ValueError: groups that do not divide D, or more than 2^20 codes in one.
  """
  check_grid([p.shape[-1] for p in log_probs], groups)
  width = len(log_probs) // groups
  total = 0.0
  for i in range(0, len(log_probs), width):
    part = log_probs[i : i + width]
    total += _entropy(_grid_mean(part))
  return total


def check_grid(levels: Sequence[int], groups: int) -> None:
  """ValueError where groups do not divide the levels or have too many codes."""
  if groups < 1 or len(levels) % groups:
    raise ValueError(
      f"{len(levels)} levels do not divide into {groups} entropy groups; "
      f"choose a divisor of {len(levels)}"
    )
  width = len(levels) // groups
  for i in range(0, len(levels), width):
    codes = math.prod(levels[i : i + width])
    if codes > 2**MAX_EXACT_BITS:
      raise ValueError(
        f"the levels {tuple(levels[i : i + width])} of one entropy group have "
        f"{codes} codes, more than 2^{MAX_EXACT_BITS}; use more groups"
      )


def table_entropies(
  z: Array, codes: Array, temperature: float, chunk: int = 1024
) -> tuple[Array, Array]:
  """Both entropies of p(code | z) = softmax(z . codes / temperature).

  Args:
    z: [n d] latents.
    codes: [K d], the table.
    temperature: tau, positive.
    chunk: latents per step; memory is chunk * K floats, not n * K.

  Returns:
    (mean entropy of one token, entropy of the mean distribution), scalars in
    [0, ln K]; zeros for n = 0.
  """
  n = z.shape[0]
  steps = -(-n // chunk) if known(n) and n > chunk else 1
  size = -(-n // steps)
  rows = jnp.pad(z, ((0, steps * size - n), (0, 0)))
  weight = (jnp.arange(steps * size) < n).astype(jnp.float32)
  # Step i has the rows i, i + steps, …: a batch split over devices stays so.
  parts = (
    rows.reshape(size, steps, z.shape[-1]).swapaxes(0, 1),
    weight.reshape(size, steps).T,
  )

  @jax.checkpoint
  def add(sums, part):
    rows, weight = part
    scores = jnp.matmul(rows, codes.T, precision=jax.lax.Precision.HIGHEST)
    log_p = jax.nn.log_softmax(scores / temperature)
    p = jnp.exp(log_p) * weight[:, None]
    token, mean = sums
    return (token - jnp.sum(p * log_p), mean + jnp.sum(p, axis=0)), None

  start = (jnp.zeros(()), jnp.zeros(len(codes)))
  (token, mean), _ = jax.lax.scan(add, start, parts)
  return token / max(n, 1), _entropy(mean / max(n, 1))


def distance_entropies(
  z: Array, codes: Array, temperature: float, chunk: int = 1024
) -> tuple[Array, Array]:
  """Both entropies of p(code | z) = softmax(-|z - code|^2 / temperature).

  Arguments and results are those of `table_entropies`: up to a number that all
  codes share, -|z - c|^2 is the product of (z, 1) and (2 c, -|c|^2).
  """
  ones = jnp.ones((z.shape[0], 1), z.dtype)
  lengths = jnp.sum(jnp.square(codes), axis=-1, keepdims=True)
  return table_entropies(
    jnp.concatenate([z, ones], axis=-1),
    jnp.concatenate([2 * codes, -lengths], axis=-1),
    temperature,
    chunk,
  )


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
  mean = mean / max(logits.shape[0], 1)
  return _entropy(mean)


def _table(logits: Array) -> Array:
  """Probability of each of the 2^D codes, [n D] -> [n 2^D]; bit 0 is lowest."""
  bits = logits.shape[-1]
  codes = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
  codes = codes.astype(np.float32)
  on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  return jnp.exp(on @ codes.T + off @ (1 - codes).T)


def _grid_mean(log_probs: Sequence[Array]) -> Array:
  """The mean over n of the joint probabilities of all numbers."""
  count, low = max(log_probs[0].shape[0], 1), len(log_probs) // 2
  high = _grid_table(log_probs[low:])
  if not low:
    return jnp.sum(high, axis=0) / count
  return high.T @ _grid_table(log_probs[:low]) / count


def _grid_table(log_probs: Sequence[Array]) -> Array:
  """[n L_i] … -> [n prod L_i] probabilities; the first number runs fastest."""
  table = log_probs[0]
  for p in log_probs[1:]:
    table = (p[:, :, None] + table[:, None, :]).reshape(
      p.shape[0], p.shape[-1] * table.shape[-1]
    )
  return jnp.exp(table)


def _entropy(p: Array) -> Array:
  """-sum p ln p, with a finite gradient."""
  # The derivative of entr is infinite at 0, where sure bits put most codes; a
  # tiny floor cuts it off and adds less than 1e-30 nats.
  return jnp.sum(jnp.where(p > 1e-37, entr(jnp.maximum(p, 1e-37)), 0.0))


def _mean(x: Array) -> Array:
  return jnp.sum(x) / max(x.size, 1)
