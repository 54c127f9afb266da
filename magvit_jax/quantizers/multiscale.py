"""Multi-scale residual quantization (VAR, arXiv 2404.02905, algorithm 1; the
layers of HiTVideo, arXiv 2503.11513; TokenFlow, arXiv 2412.03069).

A grid of latents is coded from coarse to fine, each scale what is left by those
before it. With D_s the mean over the cells of scale s and U_s resizing back,

  r_1 = z;  q_s = Q(D_s r_s);  r_{s+1} = r_s - U_s q_s;  code = sum of U_s q_s.

The ids of all scales lie behind each other, [b N f]; those of the first scales
alone are a coarser code. (VAR also passes U_s q_s through a convolution;
TokenFlow and this file do not.)
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import messages
from magvit_jax.quantizers import Base, Quantized, check_ids, nested
from magvit_jax.types import Array, Key, PyTree


def pool_matrix(size: int, cells: int) -> np.ndarray:
  """[cells size]: means over cells, uneven where they do not divide the size.

  Cell i is the mean of positions floor(i size/cells) .. ceil((i+1) size/cells),
  as in adaptive average pooling.
  """
  matrix = np.zeros((cells, size), np.float32)
  for i in range(cells):
    start, stop = i * size // cells, -(-(i + 1) * size // cells)
    matrix[i, start:stop] = 1 / (stop - start)
  return matrix


def _kernel_matrix(size, cells, reach, kernel):
  """[size cells] of resizing by a kernel: half-pixel centres, edges repeat."""
  matrix = np.zeros((size, cells), np.float64)
  for i in range(size):
    x = (i + 0.5) * cells / size - 0.5
    for j in range(int(np.floor(x)) - reach + 1, int(np.floor(x)) + reach + 1):
      matrix[i, np.clip(j, 0, cells - 1)] += kernel(abs(x - j))
  return matrix.astype(np.float32)


def linear_matrix(size: int, cells: int) -> np.ndarray:
  """[size cells]: linear interpolation without antialiasing."""
  return _kernel_matrix(size, cells, 1, lambda x: max(0.0, 1 - x))


def _cubic(x: float, a: float = -0.75) -> float:
  if x <= 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def cubic_matrix(size: int, cells: int) -> np.ndarray:
  """[size cells]: cubic interpolation with a = -0.75, as torch has it."""
  return _kernel_matrix(size, cells, 2, _cubic)


def repeat_matrix(size: int, cells: int) -> np.ndarray:
  """[size cells]: each position takes the cell it lies in."""
  return np.eye(cells, dtype=np.float32)[np.arange(size) * cells // size]


RESIZES = {
  "linear": linear_matrix,
  "cubic": cubic_matrix,
  "repeat": repeat_matrix,
}


def along_axes(x: Array, matrices: list[np.ndarray]) -> Array:
  """Applies one matrix [out in] to each axis between first and last."""
  for axis, matrix in enumerate(matrices, start=1):
    if matrix.shape[0] == matrix.shape[1]:
      continue  # one cell per position is the identity for all of them
    moved = jnp.tensordot(
      x, matrix, axes=((axis,), (1,)), precision=jax.lax.Precision.HIGHEST
    )
    x = jnp.moveaxis(moved, -1, axis)
  return x


class Quantizer(Base):
  """Multi-scale quantizer of latents [b T H W d] (or any number of axes).

  Its aux is the mean over the scales of what the base's has.

  Attributes:
    base: config of a quantizer with ids, or the quantizer.
    scales: grids from coarse to fine; the last is the grid of the latents.
    shared: one set of params for all scales.
    dropout: share of the examples whose code, when a key is given, is that of
      their first scales, so that the decoder learns to read them.
    resize: how a coarse code is brought to the full grid: 'linear' (VAR's
      ports), 'cubic' (TokenFlow), or 'repeat', which looks at no neighbour.
  """

  base: Mapping[str, Any] | nn.Module
  scales: tuple[tuple[int, ...], ...]
  shared: bool = True
  dropout: float = 0.0
  resize: str = "linear"

  def __post_init__(self):
    super().__post_init__()
    nested.check_share("multiscale", "dropout", self.dropout)
    nested.build_discrete("multiscale", self.base)
    messages.check_choice("multiscale: resize", self.resize, RESIZES)
    ranks = {len(scale) for scale in self.scales}
    steps = zip(self.scales, self.scales[1:], strict=False)
    grows = all(
      all(a <= b for a, b in zip(*pair, strict=False)) for pair in steps
    )
    if len(ranks) != 1 or not grows or np.min(self.scales) < 1:
      raise ValueError(
        f"multiscale: scales are {self.scales}; give at least one grid of "
        "positive sizes, all of one rank, each at least as fine as the last"
      )

  def setup(self):
    self.levels = nested.copies(self.base, len(self.scales), self.shared)

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return nested.build(self.base).dim

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return tuple(nested.build(self.base).sizes)

  @property
  def counts(self) -> tuple[int, ...]:
    """Ids (per factor) of each scale."""
    return tuple(int(np.prod(scale)) for scale in self.scales)

  def ids_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """[b T H W d] -> [b N f], N the cells of all scales."""
    self._check_grid(latent_shape)
    return (latent_shape[0], sum(self.counts), len(self.sizes))

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [b T H W d] -> Quantized; the key is for dropout and the base.

    Raises:
      ValueError: the grid is not the last of the scales.
    """
    self._check_grid(z.shape)
    z = z.astype(jnp.float32)
    rest, codes, outs = z, [], []
    for i, (level, scale) in enumerate(
      zip(self.levels, self.scales, strict=True)
    ):
      code, out = nested.quantize(
        level, self._pool(rest, scale), nested.subkey(key, i)
      )
      codes.append(self._fill(code, scale))
      outs.append(out)
      rest = rest - jax.lax.stop_gradient(codes[-1])
    kept = None
    if self.dropout and key is not None:
      last = jax.random.fold_in(key, len(outs))
      kept = nested.prefix_lengths(last, len(z), len(outs), self.dropout)
    ids = [
      out.ids.reshape(z.shape[0], count, len(self.sizes))
      for out, count in zip(outs, self.counts, strict=True)
    ]
    return Quantized(
      nested.ste_with_params(z, nested.sum_levels(codes, kept)),
      jnp.concatenate(ids, axis=1),
      nested.mean_aux(outs),
      nested.join_stats("levels", outs, self.shared),
    )

  def lookup(self, ids: Array) -> Array:
    """int32 ids [b N f] of the first or all scales -> codes [b T H W d].

    See check_ids for wrong ones.
    """
    ids = check_ids(ids, self.sizes)
    ends = np.cumsum(self.counts)
    if ids.ndim != 3 or ids.shape[1] not in ends:
      raise ValueError(
        f"multiscale: ids have shape {ids.shape}; they must be [b N "
        f"{len(self.sizes)}] with N one of {ends.tolist()}, for the first "
        "scales or all"
      )
    codes, start = [], 0
    count = int(np.searchsorted(ends, ids.shape[1])) + 1
    for i, scale in enumerate(self.scales[:count]):
      part = ids[:, start : ends[i]].reshape(ids.shape[0], *scale, -1)
      codes.append(self._fill(self.levels[i].lookup(part), scale))
      start = ends[i]
    return nested.sum_levels(codes, None)

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Params with each scale's refreshed."""
    return nested.refresh(self.base, params, stats, key)

  def _pool(self, x: Array, scale: tuple[int, ...]) -> Array:
    full = self.scales[-1]
    pairs = zip(full, scale, strict=True)
    return along_axes(x, [pool_matrix(n, m) for n, m in pairs])

  def _fill(self, x: Array, scale: tuple[int, ...]) -> Array:
    full, resize = self.scales[-1], RESIZES[self.resize]
    pairs = zip(full, scale, strict=True)
    full_code = along_axes(x, [resize(n, m) for n, m in pairs])
    return nested.steady(full_code)

  def _check_grid(self, shape: tuple[int, ...]) -> None:
    if tuple(shape[1:-1]) != tuple(self.scales[-1]):
      raise ValueError(
        f"multiscale: latents have the grid {tuple(shape[1:-1])}, but the last "
        f"of the scales is {self.scales[-1]}; make it the grid of the latents"
      )


TINY = dict(
  base=dict(name="fsq", levels=(4, 3)),
  scales=((1, 1, 1), (2, 2, 3), (3, 4, 5)),
)
