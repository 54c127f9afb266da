"""Vector quantization (VQ-VAE, arXiv 1711.00937; VQGAN, arXiv 2012.09841).

A latent becomes the nearest of K learnt codes. The codes are moving averages
of the latents that choose them (`learn='ema'`, appendix A.1 of VQ-VAE) or take
the gradient of 'loss_codebook' (`learn='gradient'`, its equation 3). Around
it: k-means of the first batch and restarts of dead codes (Jukebox, arXiv
2005.00341), low-dimensional and unit-length codes (ViT-VQGAN, arXiv
2110.04627), the rotation trick (arXiv 2410.06424), orthogonal codes (arXiv
2112.00384), and the entropy of MAGVIT (arXiv 2212.05199), which wants latents
sure of their code and all codes in use.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages
from magvit_jax.quantizers import Quantized, check_ids, codebook, ste
from magvit_jax.types import Array, Key, PyTree

KMEANS_ROWS = 8  # latents per code that k-means looks at, if the batch has them


def small_uniform(key: Key, shape: tuple[int, ...]) -> Array:
  """Uniform in [-1/K, 1/K] for K rows, as VQ-VAE and VQGAN start."""
  return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / shape[0]


class Quantizer(codebook.Codebook):
  """VQ.

  Its aux has 'loss_commitment' (published weight 0.25), 'loss_codebook' (1.0)
  with learn='gradient', and 'loss_orthogonal' and 'loss_entropy' (MAGVIT: 0.1;
  in nats) if those are asked for.

  Attributes:
    size: K, number of codes.
    width: numbers per latent.
    code_dim: numbers per code if fewer, with a learnt linear map to them and
      back; 0 is `width`, without maps. ViT-VQGAN has 32, later work 8.
    learn: 'ema' or 'gradient'.
    decay: of the moving averages, per step.
    kmeans: iterations of k-means on the latents of the first step; 0 keeps the
      random start. With fewer latents than codes the codes left over repeat
      some, until a restart moves them.
    restart: a code is dead, and replaced by a latent of the batch, when its
      running share is below this part of the even one; 0 never restarts.
    cosine: latents and codes of length 1, nearest in cosine.
    gradient: 'straight' or 'rotation', how the gradient passes the search.
    orthogonal: computes 'loss_orthogonal'.
    temperature: of 'loss_entropy', E[H(p)] - H(E[p]) with p the softmax of
      -|z - code|^2 / temperature; MAGVIT has 0.01. 0 does not compute it.
  """

  size: int = 1024
  width: int = 8
  code_dim: int = 0
  learn: str = "ema"
  decay: float = 0.99
  kmeans: int = 10
  restart: float = 0.1
  cosine: bool = False
  gradient: str = "straight"
  orthogonal: bool = False
  temperature: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    codebook.check_least("vq", 2, size=self.size)
    codebook.check_least("vq", 1, width=self.width)
    codebook.check_least("vq", 0, code_dim=self.code_dim, kmeans=self.kmeans)
    messages.check_choice("vq: learn", self.learn, ("ema", "gradient"))
    messages.check_choice("vq: gradient", self.gradient, codebook.GRADIENTS)
    if not 0 <= self.decay < 1 or not 0 <= self.restart < 1:
      raise ValueError(
        f"vq: decay is {self.decay} and restart {self.restart}; both must lie "
        "in [0, 1)"
      )
    if self.temperature < 0:
      raise ValueError(
        f"vq: temperature is {self.temperature}; it must be positive, or 0 for "
        "no entropy loss"
      )
    if self.orthogonal and self.learn == "ema":
      raise ValueError(
        "vq: orthogonal=True needs codes with a gradient; set learn='gradient'"
      )

  def setup(self):
    shape = (self.size, self.code_dim or self.width)
    if self.learn == "gradient":
      self.embedding = self.param("embedding", small_uniform, shape)
    else:
      self.embedding = self.param("buffer_embedding", small_uniform, shape)
      self.param("buffer_sum", lambda _: self._table())
    if self._watched:
      self.param("buffer_count", nn.initializers.ones, (self.size,))
    if self.kmeans:
      self.param("buffer_started", nn.initializers.zeros, ())
    if self.code_dim:
      self.to_code = nn.Dense(self.code_dim, name="to_code")
      self.from_code = nn.Dense(self.width, name="from_code")

  def __call__(self, z: Array, *, key: Key | None = None) -> Quantized:
    """Latents [… d] -> Quantized; the key chooses the rows for restarts."""
    z = z.astype(jnp.float32)
    z = self.to_code(z) if self.code_dim else z
    z = codebook.unit(z) if self.cosine else z
    table = self._table()
    ids = codebook.nearest(z, table)
    q = codebook.take(table, ids)
    aux = codebook.commitment(z, q)
    if self.learn == "gradient":
      aux = codebook.both_losses(z, q)
    if self.orthogonal:
      aux["loss_orthogonal"] = codebook.orthogonal(self.embedding)
    if self.temperature:
      aux |= codebook.entropies(z, table, self.temperature)
    passed = codebook.GRADIENTS[self.gradient](z, jax.lax.stop_gradient(q))
    codes = self._outside(passed, ids)
    return Quantized(codes, ids[..., None], aux, self._stats(z, ids, key))

  def lookup(self, ids: Array) -> Array:
    """int32 ids [… 1] -> codes [… d]."""
    ids = check_ids(ids, self.sizes)[..., 0]
    return codebook.take(self._decoded(self._table()), ids)

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Moves the codes: averages, dead codes, k-means at the first step.

    Args:
      params: the quantizer's own.
      stats: of the step, from `__call__`.
      key: chooses which of the dead codes are replaced.

    Returns:
      The new params.
    """
    if not stats:
      return params
    rows = stats.get("pick_rows")
    if not self.kmeans or rows is None or not len(rows):
      return self._follow(params, stats, key)
    return jax.lax.cond(
      params["buffer_started"] > 0,
      lambda: self._follow(params, stats, key),
      lambda: self._start(params, stats, rows),
    )

  @property
  def _watched(self) -> bool:
    return self.learn == "ema" or self.restart > 0

  def _table(self) -> Array:
    """Codes [K code_dim] as they are searched."""
    table = self.embedding
    if self.learn == "ema":
      table = jax.lax.stop_gradient(table)
    return codebook.unit(table) if self.cosine else table

  def _decoded(self, table: Array) -> Array:
    """Codes as the decoder sees them, [K d].

    The whole table goes through the map, not the chosen rows: products of one
    shape are equal to the last bit, so `lookup` gives what `__call__` gave.
    """
    return self.from_code(table) if self.code_dim else table

  def _outside(self, passed: Array, ids: Array) -> Array:
    """Codes [… d]: value from the table, tangent through `passed` [… c]."""
    table = jax.lax.stop_gradient(self._table())
    rows = codebook.take(self._decoded(table), ids)
    if not self.code_dim:
      return ste(passed, rows)
    kernel = self.from_code.variables["params"]["kernel"]
    return codebook.carry(passed @ jax.lax.stop_gradient(kernel), rows)

  def _stats(self, z: Array, ids: Array, key: Key | None) -> PyTree:
    if not self._watched and not self.kmeans:
      return {}
    rows = z.reshape(-1, z.shape[-1])
    stats = codebook.sums(rows, ids.reshape(-1), self.size)
    if key is not None and (self.restart or self.kmeans):
      most = self.size * (KMEANS_ROWS if self.kmeans else 1)
      stats["pick_rows"] = codebook.pick(key, rows, most)
    return stats

  def _follow(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """One step of the moving averages, then the restarts."""
    new = dict(params)
    if self._watched:
      new["buffer_count"] = codebook.follow(
        params["buffer_count"], stats["count"], self.decay
      )
    if self.learn == "ema":
      total = codebook.follow(params["buffer_sum"], stats["sum"], self.decay)
      table = codebook.means(new["buffer_count"], total)
      table = codebook.unit(table) if self.cosine else table
      new |= {"buffer_sum": total, "buffer_embedding": table}
    if self.restart and "pick_rows" in stats:
      new = self._restart(new, stats["pick_rows"], key)
    return new

  def _restart(self, params: PyTree, rows: Array, key: Key) -> PyTree:
    """Dead codes move to latents, and die again at once if none chooses them.

    They count as at the limit, as in vector-quantize-pytorch, so that the book
    follows an encoder that moves fast.
    """
    name = "embedding" if self.learn == "gradient" else "buffer_embedding"
    count = params["buffer_count"]
    limit = self.restart * jnp.mean(count)
    ids, use = codebook.place(key, count < limit, len(rows))
    rows = rows[: len(ids)]
    new = dict(params)
    new[name] = codebook.put(params[name], ids, use, rows)
    new["buffer_count"] = codebook.put(count, ids, use, limit)
    if self.learn == "ema":
      total = params["buffer_sum"]
      new["buffer_sum"] = codebook.put(total, ids, use, rows * limit)
    return new

  def _start(self, params: PyTree, stats: PyTree, rows: Array) -> PyTree:
    """k-means on the latents of the first step."""
    start = jnp.resize(rows, (self.size, rows.shape[-1]))
    table, count = codebook.kmeans(rows, start, self.kmeans)
    table = codebook.unit(table) if self.cosine else table
    count *= jnp.sum(stats["count"]) / len(rows)
    new = {**params, "buffer_started": jnp.ones_like(params["buffer_started"])}
    if self._watched:
      new["buffer_count"] = count
    if self.learn == "gradient":
      return {**new, "embedding": table}
    total = table * count[:, None]
    return {**new, "buffer_embedding": table, "buffer_sum": total}


TINY = dict(size=8, width=4)
