"""Tokenizers: a backbone and a quantizer. Files here define `Backbone`.

A backbone is a linen Module with `latent_dim` (given by the quantizer), a class
fact `causal`, `stride` (pixels per token in t, h, w), `latent_shape(t, h, w)`,
`encode(video) -> [b T H W d]` and `decode(codes) -> video`. Causal ones also
have `encode_chunk(carry, video)` and `decode_chunk(carry, codes)`, both
`-> (carry, …)`: carry None starts a clip, whose first chunk has 1+k*st frames;
later ones have k*st. encode(v) is encode_chunk(None, v)[1]. One that is not
causal, but whose clips have 1+k*st frames all the same, says `alone = True`.
The last layer of a decoder is named decoder/head; an adaptive adversarial
weight looks for it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from magvit_jax import messages, registry
from magvit_jax.nn import target_platform
from magvit_jax.nn.layer import Carry
from magvit_jax.quantizers import Quantized
from magvit_jax.types import Array, Key, PyTree


class Tokenizer(nn.Module):
  """The one composition of backbone and quantizer.

  Attributes:
    backbone: a Backbone.
    quantizer: a Quantizer whose `dim` is the backbone's latent_dim.
  """

  backbone: nn.Module
  quantizer: nn.Module

  @property
  def strides(self) -> tuple[int, int, int]:
    """Pixels per token in time, height and width."""
    return self.backbone.stride

  def latent_shape(self, t: int, h: int, w: int) -> tuple[int, ...]:
    """(T, H, W, d) of a clip; ValueError for sizes that do not divide."""
    return self.backbone.latent_shape(t, h, w)

  def __call__(
    self, video: Array, *, key: Key | None = None
  ) -> tuple[Array, Quantized]:
    """[b t h w 3] -> (reconstruction [b t h w 3], Quantized)."""
    quantized = self.quantizer(self.backbone.encode(video), key=key)
    return self.backbone.decode(quantized.codes), quantized

  def encode(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1] -> ids int32 [b T H W f]."""
    return self.quantizer(self.backbone.encode(video)).ids

  def decode(self, ids: Array) -> Array:
    """ids int32 [b T H W f] -> video [b t h w 3], not clipped."""
    return self.backbone.decode(self.quantizer.lookup(ids))

  def encode_chunk(self, carry: Carry, video: Array) -> tuple[Carry, Array]:
    """The next chunk of a clip -> (carry, its ids)."""
    carry, latents = self.backbone.encode_chunk(carry, video)
    return carry, self.quantizer(latents).ids

  def decode_chunk(self, carry: Carry, ids: Array) -> tuple[Carry, Array]:
    """The next ids of a clip -> (carry, its frames)."""
    return self.backbone.decode_chunk(carry, self.quantizer.lookup(ids))

  def refresh(self, params: PyTree, stats: PyTree, key: Key) -> PyTree:
    """Params after the quantizer's own update (EMA codebooks, restarts)."""
    if "quantizer" not in params:
      return params
    own = self.quantizer.clone(parent=None)
    new = own.refresh(params["quantizer"], stats, key)
    return {**params, "quantizer": new}


def alone(backbone: Any) -> bool:
  """Whether the first frame of a clip is a latent frame: 1+k*st of them."""
  return getattr(backbone, "alone", backbone.causal)


def abstract(module: Tokenizer) -> PyTree:
  """Shapes of its weights."""
  st, sh, sw = module.strides
  frames = st + alone(module.backbone)
  video = jax.ShapeDtypeStruct((1, frames, sh, sw, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), video)
  return variables.get("params", {})


def build_tokenizer(cfg: Mapping[str, Any]) -> Tokenizer:
  """The tokenizer of a stage config: its `backbone`, `quantizer`, `dtype`."""
  quantizer = registry.build("quantizers", cfg["quantizer"])
  backbone = registry.build(
    "tokenizers",
    cfg["backbone"],
    latent_dim=quantizer.dim,
    dtype=compute_dtype(cfg["dtype"]),
  )
  return Tokenizer(backbone, quantizer)


def compute_dtype(name: str) -> Any:
  """'float32', 'bfloat16', or 'auto': bfloat16 on TPU and GPU."""
  messages.check_choice("stage.dtype", name, ("auto", "float32", "bfloat16"))
  if name == "auto":
    name = "float32" if target_platform.current() == "cpu" else "bfloat16"
  return jnp.dtype(name)
