"""What changes over the steps of decoding: the share of tokens that is masked,
by the schedules of MaskGIT and MAGVIT, and the strength of guidance.

gamma(r, n) falls from 1 at r = 0 (exp: from 1 - 1/n) to about 0 at r = 1; n is
the number of tokens that can be masked (exp and log depend on it). Training
draws r at random; decoding walks it from 0 to 1.
"""

import functools

import jax.numpy as jnp
import numpy as np

from magvit_jax import messages
from magvit_jax.types import Array

FLOOR = 1e-6  # also what cos(pi / 2) comes to, which float32 makes negative


def cosine(r, n, xp):
  """cos(pi r / 2)."""
  del n
  return xp.cos(r * xp.float32(np.pi / 2))


def uniform(r, n, xp):
  """1 - r."""
  del n, xp
  return 1 - r


def power(r, n, xp, exponent):
  """1 - r^exponent."""
  del n, xp
  return 1 - r**exponent


def exp(r, n, xp):
  """1 - n^-(1 - r)."""
  return 1 - xp.exp2(-_bits(n, xp) * (1 - r))


def log(r, n, xp):
  """-log r / log n."""
  return -xp.log2(xp.maximum(r, xp.float32(FLOOR))) / _bits(n, xp)


SCHEDULES = {
  "cosine": cosine,
  "uniform": uniform,
  "exp": exp,
  "log": log,
  "pow2": functools.partial(power, exponent=2),
  "pow3": functools.partial(power, exponent=3),
  "pow4": functools.partial(power, exponent=4),
}


def gamma(name: str, r: Array, n: Array, xp=jnp) -> Array:
  """The masked share at r, in [1e-6, 1].

  Args:
    name: a schedule.
    r: float32 in [0, 1].
    n: number of maskable tokens; broadcasts against r.
    xp: numpy or jax.numpy, whichever the arrays are of.

  Raises:
    ValueError: no such schedule; the message lists them.
  """
  check(name)
  share = SCHEDULES[name](xp.asarray(r, xp.float32), n, xp)
  return xp.clip(share, xp.float32(FLOOR), xp.float32(1))


def check(name: str) -> None:
  """Raises ValueError for a schedule that does not exist."""
  messages.check_choice("schedule", name, SCHEDULES)


def counts(name: str, n: int, steps: int) -> np.ndarray:
  """int32 [steps]: how many of n tokens stay masked after each step."""
  return count_table(name, n, steps)[n]


@functools.cache
def count_table(name: str, n_max: int, steps: int) -> np.ndarray:
  """int32 [n_max + 1, steps]: `counts` for every n from 0 to n_max.

  floor(n gamma), at least one less than before and at least 1, in this order
  (MaskGIT's; the other one, MAGVIT's, lets 0 pass and then masks everything
  again), until the last step, which leaves none. float32 in numpy, as the
  published counts are: a float64 or compiled cosine differs by one at exact
  multiples.
  """
  n = np.arange(n_max + 1)
  table = np.zeros((n_max + 1, steps), np.int32)
  left = n
  for step in range(1, steps):
    share = gamma(name, np.float32(step / steps), n, np)
    want = np.floor(n.astype(np.float32) * share).astype(np.int32)
    left = np.minimum(np.maximum(np.minimum(want, left - 1), 1), n)
    table[:, step - 1] = left
  table.setflags(write=False)
  return table


def guidance_ramp(power: float, steps: int) -> np.ndarray:
  """The share of the guidance at each step, float32 [steps], at last 1.

  (1 - cos(pi r^power)) / 2 at r = (step + 1) / steps: the power-cosine of MDT
  (arXiv 2303.14389), which MAGVIT-v2 takes over. Power 0 is 1 at every step.
  """
  r = (np.arange(steps) + 1) / steps
  return ((1 - np.cos(np.pi * r**power)) / 2).astype(np.float32)


def _bits(n, xp):
  """log2 n; a single token counts as two, to stay above 0."""
  return xp.log2(xp.maximum(xp.asarray(n, xp.float32), xp.float32(2)))
