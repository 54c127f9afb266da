"""What causal backbones share: a clip is its first chunk."""

import flax.linen as nn

from magvit_jax.nn.layer import Carry
from magvit_jax.tokenizers.levels import causal_grid, check_chunk
from magvit_jax.types import Array


class CausalBackbone(nn.Module):
  """A backbone whose `encoder` and `decoder` are layers (x, carry) -> both.

  A subclass has the field `latent_dim`, the property `stride`, and makes the
  two layers in `setup`.
  """

  causal = True

  def latent_shape(self, t: int, h: int, w: int) -> tuple[int, ...]:
    """(T, H, W, latent_dim) of a clip of t frames of h x w.

    Raises:
      ValueError: a size that the strides do not divide.
    """
    grid = causal_grid(self._label(), t, h, w, self.stride)
    return (*grid, self.latent_dim)

  def encode(self, video: Array) -> Array:
    """[b t h w 3] in [-1,1] -> latents [b T H W d]."""
    return self.encode_chunk(None, video)[1]

  def decode(self, codes: Array) -> Array:
    """Codes [b T H W d] -> video [b t h w 3], not clipped."""
    return self.decode_chunk(None, codes)[1]

  def encode_chunk(self, carry: Carry, video: Array) -> tuple[Carry, Array]:
    """The next chunk: 1+k*st frames if carry is None (a start), else k*st."""
    check_chunk(self._label(), carry, video.shape, self.stride)
    latents, carry = self.encoder(video, carry)
    return carry, latents

  def decode_chunk(self, carry: Carry, codes: Array) -> tuple[Carry, Array]:
    """The next chunk of latent frames; the first one starts with frame 0."""
    video, carry = self.decoder(codes, carry)
    return carry, video

  @nn.nowrap
  def _label(self) -> str:
    """The name in a config, for errors."""
    return type(self).__module__.rpartition(".")[2]
