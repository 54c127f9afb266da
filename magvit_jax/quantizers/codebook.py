"""What quantizers with a table of codes share: tables are [K d], a code a row.

No function here makes an [n K] array of one-hot rows, and a search over many
codes goes block by block over the table: the batch axis stays whole, so that it
stays sharded.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from magvit_jax.losses import entropy
from magvit_jax.quantizers import Base, ste
from magvit_jax.types import Array, Key, PyTree, known

MAX_SCORES = 2**22  # floats of one block of scores, 16 MB
SOME_ROWS = 2**12  # latents that blocks are cut for where n is a symbol
EPS = 1e-6


class Codebook(Base):
  """A quantizer whose fields `size` and `width` say how big its table is."""

  @property
  def dim(self) -> int:
    """Width of a latent."""
    return self.width

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ids per factor."""
    return (self.size,)


def unit(x: Array) -> Array:
  """Rows of length 1; zero rows stay zero and have finite gradients.

  The same to the last bit eager and jitted, as `lookup` must give exactly what
  a jitted call gave: the sum is a product with ones, which no compiler fuses
  into another order, and the barrier keeps x / sqrt from becoming x * rsqrt.
  """
  square = dot(jnp.square(x), jnp.ones((x.shape[-1], 1)))
  length = jnp.sqrt(jnp.maximum(square, EPS**2))
  return x / jax.lax.optimization_barrier(length)


def take(table: Array, ids: Array) -> Array:
  """Rows of table [K d] at int32 ids […] -> [… d]."""
  return jnp.take(table, ids, axis=0, mode="clip")


def nearest(z: Array, table: Array) -> Array:
  """The id of the nearest code in Euclidean distance, [… d] -> int32 […].

  Of equally near codes it is the first. For unit rows this is the code of the
  largest cosine.
  """
  return best(z, table, -0.5 * jnp.sum(jnp.square(table), axis=-1))


def best(
  z: Array, table: Array, bias: Array | None = None, key: Key | None = None
) -> Array:
  """argmax over codes k of z . table_k + bias_k, [… d] -> int32 […].

  Args:
    z: [… d].
    table: [K d].
    bias: [K] or None.
    key: adds Gumbel noise to each score, which draws k from the softmax of the
      scores instead of taking the largest.
  """
  z, table = jax.lax.stop_gradient((z, table))
  bias = jnp.zeros(len(table)) if bias is None else jax.lax.stop_gradient(bias)
  rows = z.reshape(-1, z.shape[-1])
  size = len(table)
  count = rows.shape[0] if known(rows.shape[0]) else SOME_ROWS
  block = min(size, max(256, MAX_SCORES // max(count, 1)))
  blocks = -(-size // block)
  extra = blocks * block - size
  table = jnp.pad(table, ((0, extra), (0, 0))).reshape(blocks, block, -1)
  bias = jnp.pad(bias, (0, extra), constant_values=-jnp.inf)
  bias = bias.reshape(blocks, block)

  def search(carry, part):
    top, ids = carry
    number, codes, offset = part
    scores = dot(rows, codes.T) + offset
    if key is not None:
      noise = jax.random.fold_in(key, number)
      scores += jax.random.gumbel(noise, scores.shape)
    here = jnp.max(scores, axis=-1)
    place = jnp.argmax(scores, axis=-1).astype(jnp.int32) + number * block
    better = here > top
    return (jnp.where(better, here, top), jnp.where(better, place, ids)), None

  start = (
    jnp.full(rows.shape[0], -jnp.inf),
    jnp.zeros(rows.shape[0], jnp.int32),
  )
  parts = (jnp.arange(blocks), table, bias)
  if blocks == 1:
    (_, ids), _ = search(start, jax.tree.map(lambda x: x[0], parts))
  else:
    (_, ids), _ = jax.lax.scan(search, start, parts)
  return jnp.minimum(ids, size - 1).reshape(z.shape[:-1])


def dot(a: Array, b: Array) -> Array:
  """a @ b in full float32: the default of TPUs and GPUs would move ids."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def straight(z: Array, q: Array) -> Array:
  """What the straight-through estimator differentiates: z itself."""
  del q
  return z


def rotate(z: Array, q: Array) -> Array:
  """z turned and stretched onto q, the rotation trick (arXiv 2410.06424).

  With u, v the directions of z and q and w that of u + v, the map
  R z = |q|/|z| (z - 2 (z.w) w + 2 (z.u) v) is held constant: R z = q, and the
  gradient at q reaches z turned back instead of copied.

  Args:
    z: [… d].
    q: [… d].
  """
  stop = jax.lax.stop_gradient
  u, v = stop(unit(z)), stop(unit(q))
  w = stop(unit(u + v))
  stretch = _length(q) / jnp.maximum(_length(z), EPS)
  along = lambda a: jnp.sum(z * a, axis=-1, keepdims=True)  # noqa: E731
  return stop(stretch) * (z - 2 * along(w) * w + 2 * along(u) * v)


GRADIENTS = {"straight": straight, "rotation": rotate}


def _length(x: Array) -> Array:
  return jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))


def by_index(soft: Array, ids: Array, table: Array) -> Array:
  """table[ids] with the gradient of one_hot(ids) + soft - stop(soft).

  Args:
    soft: [… K] probabilities, which carry the gradient.
    ids: int32 […].
    table: [K d]; it gets the gradient of the chosen rows.

  Returns:
    [… d], exactly the rows.
  """
  return carry(dot(soft, jax.lax.stop_gradient(table)), take(table, ids))


def carry(through: Array, rows: Array) -> Array:
  """The value of `rows` and the sum of the tangents of both."""
  return ste(through + rows, jax.lax.stop_gradient(rows))


def by_chunks(function: Callable, rows: Array, floats: int) -> PyTree:
  """function(rows), a chunk at a time and made again for the gradient.

  Chunk i has the rows i, i + chunks, …: a batch split over devices stays split.

  Args:
    function: [m d] -> arrays of m rows, each row by itself.
    rows: [n d]; one chunk if n is a symbol.
    floats: what `function` holds for a row; n * floats set the chunks.
  """
  n = rows.shape[0]
  chunks = max(1, -(-n * floats // MAX_SCORES)) if known(n) else 1
  if chunks == 1:
    return function(rows)
  each = -(-n // chunks)
  extra = ((0, each * chunks - n), (0, 0))
  parts = jnp.pad(rows, extra).reshape(each, chunks, -1).swapaxes(0, 1)
  made = jax.lax.map(jax.checkpoint(function), parts)

  def whole(x):
    return x.swapaxes(0, 1).reshape(each * chunks, *x.shape[2:])[:n]

  return jax.tree.map(whole, made)


def commitment(z: Array, q: Array) -> dict[str, Array]:
  """'loss_commitment' pulls z [… d] to its code; 0 for no latents."""
  return {"loss_commitment": square_error(z, jax.lax.stop_gradient(q))}


def both_losses(z: Array, q: Array) -> dict[str, Array]:
  """'loss_commitment', and 'loss_codebook' that pulls the codes q to z."""
  stop = jax.lax.stop_gradient
  return {**commitment(z, q), "loss_codebook": square_error(q, stop(z))}


def entropies(z: Array, table: Array, temperature: float) -> dict[str, Array]:
  """'loss_entropy' of the distances of z [… d] to the codes, and its parts."""
  token, batch = entropy.distance_entropies(
    z.reshape(-1, z.shape[-1]),
    table,
    temperature,
    chunk=max(1, MAX_SCORES // len(table)),
  )
  return {
    "loss_entropy": token - batch,
    "entropy_token": token,
    "entropy_batch": batch,
  }


def square_error(a: Array, b: Array) -> Array:
  """Mean over all numbers of (a - b)^2; 0 for none."""
  return jnp.sum(jnp.square(a - b)) / max(a.size, 1)


def orthogonal(table: Array) -> Array:
  """Mean squared cosine of two codes less its 1/K of equal pairs.

  Equation 2 of arXiv 2112.00384, through the [d d] instead of the [K K] matrix
  of products: both have the same sum of squares.
  """
  rows = unit(table)
  return jnp.sum(jnp.square(dot(rows.T, rows))) / len(rows) ** 2 - 1 / len(rows)


def sums(z: Array, ids: Array, size: int) -> dict[str, Array]:
  """{'count': [K], 'sum': [K d]} of the latents [n d] that chose each code."""
  z = jax.lax.stop_gradient(z)
  ones = jnp.ones(z.shape[0])
  return {
    "count": jax.ops.segment_sum(ones, ids, size),
    "sum": jax.ops.segment_sum(z, ids, size),
  }


def pick(key: Key, z: Array, most: int) -> Array:
  """At most `most` different rows of z [n d], in random order."""
  rows = jax.random.permutation(key, len(z))[:most]
  return jax.lax.stop_gradient(z)[rows]


def averages(size: int, table: Array) -> dict[str, Array]:
  """Running sums that make `table` the mean of one latent per code."""
  return {"count": jnp.ones(size), "sum": table}


def follow(old: PyTree, new: PyTree, decay: float) -> PyTree:
  """Exponential moving average of the sums of each batch."""
  return jax.tree.map(lambda a, b: a * decay + b * (1 - decay), old, new)


def means(count: Array, total: Array) -> Array:
  """Codes from running sums; the Laplace smoothing keeps empty ones finite."""
  whole, eps = jnp.sum(count), 1e-5
  smooth = (count + eps) / (whole + len(count) * eps) * whole
  return total / smooth[:, None]


def kmeans(rows: Array, table: Array, steps: int) -> tuple[Array, Array]:
  """Lloyd's iterations from the codes `table`.

  Args:
    rows: [n d].
    table: [K d], where to start.
    steps: number of iterations.

  Returns:
    Codes [K d] (one without rows keeps its place) and the rows of each [K].
  """

  def body(_, carry):
    codes, _ = carry
    part = sums(rows, nearest(rows, codes), len(codes))
    count = part["count"]
    mean = part["sum"] / jnp.maximum(count, 1)[:, None]
    return jnp.where(count[:, None] > 0, mean, codes), count

  return jax.lax.fori_loop(0, steps, body, (table, jnp.zeros(len(table))))


def place(key: Key, dead: Array, most: int) -> tuple[Array, Array]:
  """Where up to `most` rows go: a random subset of the dead codes.

  Args:
    key: chooses the subset.
    dead: bool [K].
    most: number of rows at hand, static.

  Returns:
    (ids int32 [m], use bool [m]) with m = min(most, K): row i goes to code
    ids[i] where use[i].
  """
  order = jax.random.uniform(key, dead.shape) + jnp.where(dead, 0.0, 1.0)
  ids = jnp.argsort(order)[:most]
  return ids, dead[ids]


def put(table: Array, ids: Array, use: Array, rows: Array) -> Array:
  """`table` [K …] with rows [m …] at ids [m] where use [m]."""
  use = use.reshape(-1, *(1,) * (table.ndim - 1))
  return table.at[ids].set(jnp.where(use, rows, table[ids]))


def check_least(name: str, least: int, **fields: int) -> None:
  """ValueError unless each field is at least `least`."""
  for field, value in fields.items():
    if value < least:
      raise ValueError(
        f"{name}: {field} is {value}; it must be at least {least}"
      )
