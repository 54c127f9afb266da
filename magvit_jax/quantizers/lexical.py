"""Streaming average quantization of SPAE (arXiv 2306.17842, section 3.1).

The codes are the frozen token embeddings of a language model, the ids a pyramid
of its words. Layer l looks at every s_l-th row and column of the grid, and
there quantizes z_l = z + sum over the layers i < l that cover the place of
(z - e_i); what is decoded is the *average* of the codes of a place, so that any
prefix of the layers is a coarser version. An average stays in the convex hull
of the table: latents should not be longer than the codes.
"""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax.quantizers import Quantized, check_ids, codebook
from magvit_jax.types import Array, Key


def stream_average(
  z: Array, table: Array, strides: tuple[int, ...]
) -> tuple[list[Array], Array]:
  """The ids of each layer, coarse to fine, and the average of their codes.

  Args:
    z: [… H W c].
    table: [K c].
    strides: s_l of each layer.

  Returns:
    (ids int32 [… ceil(H/s) ceil(W/s)] per layer, average [… H W c]).
  """
  ids, grid = [], z.shape[-3:-1]
  for stride in strides:
    replay = z
    if ids:  # z + sum (z - e_i) over the layers so far
      count = _cover(strides[: len(ids)], grid)
      replay = z * (1 + count) - _sum(ids, table, strides, grid)
    ids.append(codebook.nearest(replay[_places(stride)], table))
  return ids, average(ids, table, strides, grid)


def average(
  ids: list[Array],
  table: Array,
  strides: tuple[int, ...],
  grid: tuple[int, ...],
) -> Array:
  """The average that `stream_average` gave with these ids, [… H W c].

  With fewer ids than strides, those of the first layers, a place that they do
  not cover takes the code of the covered place above and left of it.
  """
  total = _sum(ids, table, strides, grid)
  count = np.maximum(_cover(strides[: len(ids)], grid), 1)
  mean = total * (1 / count)
  finest = strides[len(ids) - 1]
  if finest == 1:
    return mean
  rows, columns = (np.arange(n) // finest * finest for n in grid)
  return mean[..., rows[:, None], columns, :]


def _places(stride: int) -> tuple:
  return (
    ...,
    slice(None, None, stride),
    slice(None, None, stride),
    slice(None),
  )


def _cover(strides: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
  """How many of the layers cover each place, float32 [H W 1]."""
  count = np.zeros((*grid, 1), np.float32)
  for stride in strides:
    count[_places(stride)] += 1
  return count


def _sum(
  ids: list[Array],
  table: Array,
  strides: tuple[int, ...],
  grid: tuple[int, ...],
) -> Array:
  """The sum of the codes at each place, [… H W c].

  Layers are spread by padding and added in order: scatters are added in an
  order that differs with and without jit.
  """
  total = jnp.zeros((*ids[0].shape[:-2], *grid, table.shape[-1]))
  for layer, stride in zip(ids, strides, strict=False):
    gaps = [(0, 0, 0)] * total.ndim
    for axis, n in zip((-3, -2), grid, strict=True):
      gaps[axis] = (0, (n - 1) % stride, stride - 1)
    total += jax.lax.pad(codebook.take(table, layer), 0.0, gaps)
  return total


def read_table(path: str, shape: tuple[int, int]) -> np.ndarray:
  """float32 [K c] of a .npy file, scaled to a mean square of 1.

  Raises:
    FileNotFoundError: no such file.
    ValueError: an array of another shape.
  """
  table = np.load(path, mmap_mode="r", allow_pickle=False)
  if table.shape != shape:
    raise ValueError(
      f"lexical: {path} holds an array {table.shape}, but size and code_dim "
      f"ask for {shape}; set them to what the file has"
    )
  table = np.asarray(table, np.float32)
  return table / np.sqrt(np.mean(np.square(table)))


class Quantizer(codebook.Codebook):
  """SPAE's quantizer.

  Its aux has 'loss_commitment'. A latent grid [… H W d] has the ids of all
  layers, coarse to fine and line by line within a layer, as one axis: [… n 1],
  1 + 4 + 16 + 64 + 256 + 256 = 597 at the defaults. Each frame of a video has
  its own pyramid.

  Attributes:
    size: K, number of codes.
    width: numbers per latent.
    code_dim: numbers per code, with a learnt linear map to them and back; 0 is
      `width`, without maps.
    grid: H and W of the latents.
    strides: distance of a layer's places, per layer; the last is 1.
    path: .npy file with the table, float [K code_dim], read when the weights
      are made; '' draws N(0, 1).
  """

  size: int = 65536
  width: int = 256
  code_dim: int = 0
  grid: tuple[int, int] = (16, 16)
  strides: tuple[int, ...] = (16, 8, 4, 2, 1, 1)
  path: str = ""

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("lexical", 2, size=self.size)
    codebook.check_least("lexical", 1, width=self.width)
    codebook.check_least("lexical", 0, code_dim=self.code_dim)
    if len(self.grid) != 2 or min(self.grid) < 1:
      raise ValueError(f"lexical: grid is {self.grid}; it must be (H, W)")
    falling = list(self.strides) == sorted(self.strides, reverse=True)
    if not self.strides or not falling or self.strides[-1] != 1:
      raise ValueError(
        f"lexical: strides are {self.strides}; they must fall and end with 1, "
        "such as (4, 2, 1)"
      )
    if self.path and pathlib.Path(self.path).exists():
      read_table(self.path, self._shape)

  def setup(self):
    self.codes = self.param("buffer_codes", self._make_table)
    if self.code_dim:
      self.to_code = nn.Dense(self.code_dim, name="to_code")
      self.from_code = nn.Dense(self.width, name="from_code")

  @property
  def layers(self) -> tuple[tuple[int, int], ...]:
    """Rows and columns of places of each layer."""
    height, width = self.grid
    return tuple((-(-height // s), -(-width // s)) for s in self.strides)

  def ids_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """[… H W d] -> [… n 1], n places of all layers."""
    return (*latent_shape[:-3], sum(h * w for h, w in self.layers), 1)

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… H W d] -> Quantized; needs no key."""
    del key
    if z.ndim < 3 or z.shape[-3:-1] != tuple(self.grid):
      raise ValueError(
        f"lexical: latents are {z.shape}; their axes before the last must be "
        f"the grid {self.grid}"
      )
    z = z.astype(jnp.float32)
    z = self.to_code(z) if self.code_dim else z
    table = jax.lax.stop_gradient(self.codes)
    ids, mean = stream_average(z, table, self.strides)
    flat = [x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1]) for x in ids]
    aux = codebook.commitment(z, mean)
    rows, through = self._outside(ids), z
    if self.code_dim:
      kernel = self.from_code.variables["params"]["kernel"]
      through = z @ jax.lax.stop_gradient(kernel)
    ids = jnp.concatenate(flat, axis=-1)[..., None]
    return Quantized(codebook.carry(through, rows), ids, aux, {})

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… n 1] of all or the first layers -> codes [… H W d].

    Raises:
      ValueError: n is not the number of ids of the first 1, 2, … layers.
    """
    ids = check_ids(ids, self.sizes)[..., 0]
    ends = np.cumsum([h * w for h, w in self.layers])
    if ids.shape[-1] not in ends:
      raise ValueError(
        f"lexical: {ids.shape[-1]} ids per pyramid; whole layers have "
        f"{', '.join(map(str, ends))}"
      )
    known = list(ends).index(ids.shape[-1]) + 1
    parts = jnp.split(ids, ends[: known - 1], axis=-1)
    parts = [
      part.reshape(*part.shape[:-1], *layer)
      for part, layer in zip(parts, self.layers, strict=False)
    ]
    return self._outside(parts)

  @property
  def _shape(self) -> tuple[int, int]:
    return (self.size, self.code_dim or self.width)

  def _outside(self, ids: list[Array]) -> Array:
    """Codes [… H W d] as the decoder sees them."""
    table = jax.lax.stop_gradient(self.codes)
    mean = average(ids, table, self.strides, tuple(self.grid))
    return self.from_code(mean) if self.code_dim else mean

  def _make_table(self, key: Key) -> Array:
    """Drawn, or of the file: read when it runs, not when it is traced, so that
    a checkpoint can be restored where the file is not."""
    if not self.path:
      return jax.random.normal(key, self._shape)
    shape = jax.ShapeDtypeStruct(self._shape, jnp.float32)
    return jax.pure_callback(lambda: read_table(self.path, self._shape), shape)


TINY = dict(size=16, width=4, grid=(4, 5), strides=(4, 2, 1))
