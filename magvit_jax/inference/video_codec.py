"""The tokenizer a user holds, loaded from a workdir (generators: sampler.py).

  tok = magvit_jax.load_tokenizer("runs/quickstart/tokenizer")
  ids = tok.encode(video)        # [t h w 3] -> int32 [T H W f]
  video = tok.decode(ids)        # float32 in [-1, 1]

Videos go through in pieces over time, each handing its carry to the next, so
memory does not grow with the length; frames bigger than a tile are cut into
overlapping tiles, so it grows slowly with the size. Programs are compiled
once per shape of a piece: two shapes (first and later pieces) serve a video of
any length, and every video of the same frame size shares them.

A tokenizer that is not causal (cnn3d) has no carry, since every token sees all
frames of its clip: its pieces are clips of the length it was trained on, each
coded alone.
"""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import tokenizers
from magvit_jax.checkpoints import checksum, saved_weights
from magvit_jax.files import workdirs
from magvit_jax.inference import tiling

# Pixels of one piece over all tiles: what the host holds as float32 at a time.
PIECE_PIXELS = 2**23
LATENTS_PER_PIECE = 4


def load_tokenizer(
  folder: str | os.PathLike[str],
  *,
  step: int | None = None,
  tile: int = 512,
  overlap: int = 64,
) -> "Codec":
  """Loads the tokenizer that was trained in a workdir.

  Args:
    folder: workdir of a run whose stage is `tokenizer`, an export of one, or
      what `convert` wrote.
    step: checkpoint to load; None takes the newest whole one.
    tile: frames wider or higher than this many pixels are cut into tiles.
    overlap: pixels that neighbouring tiles share.

  Returns:
    A `Codec` with the moving average of the weights.

  Raises:
    FileNotFoundError: no such workdir, or it has no checkpoint.
    ValueError: the run in it did not train a tokenizer.
  """
  config = saved_weights.config(folder)
  stage = config["stage"]
  if stage["name"] != "tokenizer":
    raise ValueError(
      f"{os.fspath(folder)} holds a run of the stage {stage['name']!r}; "
      "load_tokenizer needs one of the stage 'tokenizer'"
    )
  with workdirs.blaming(folder):
    module = tokenizers.build_tokenizer(stage)
    abstract = tokenizers.abstract(module)
  params = saved_weights.weights(folder, abstract, step)
  clip = None if module.backbone.causal else config["data"]["frames"]
  return Codec(module, params, tile=tile, overlap=overlap, clip=clip)


class Codec:
  """A tokenizer with its weights: videos to ids and back.

  Attributes:
    strides: (st, sh, sw), frames, lines and columns per token.
    sizes: number of ids of each factor.
    causal: whether a video passes in pieces that go on from one another.
    fingerprint: 16 hex digits of the weights; ids of one fingerprint mean
      nothing to a tokenizer of another.
  """

  def __init__(
    self,
    module: Any,
    params: Any,
    *,
    tile: int = 512,
    overlap: int = 64,
    clip: int | None = None,
  ):
    """Wraps a `Tokenizer` module and its params; see `load_tokenizer`.

    Args:
      module: the tokenizer.
      params: its weights.
      tile, overlap: as in `load_tokenizer`.
      clip: frames that one that is not causal codes at a time; None is all of
        them. A causal one takes no notice.
    """
    self.causal = bool(module.backbone.causal)
    self.strides = tuple(module.strides)
    self.sizes = tuple(module.quantizer.sizes)
    if not self.sizes:
      raise ValueError(
        f"the quantizer {type(module.quantizer).__name__} is continuous, so "
        "it has no ids; encode and decode need a discrete one"
      )
    self.fingerprint = checksum.fingerprint(params)
    self._params = params
    self._tile, self._overlap = tile, overlap
    self._alone = int(tokenizers.alone(module.backbone))
    self._clip = None if self.causal else clip

    def encode(params, carry, video):
      variables, video = {"params": params}, to_float(video)
      if self.causal:
        method = module.encode_chunk
        return module.apply(variables, carry, video, method=method)
      return None, module.apply(variables, video, method=module.encode)

    def decode(params, carry, ids):
      variables = {"params": params}
      if self.causal:
        method = module.decode_chunk
        carry, video = module.apply(variables, carry, ids, method=method)
      else:
        video = module.apply(variables, ids, method=module.decode)
      return carry, jnp.clip(video.astype(jnp.float32), -1, 1)

    self._encode, self._decode = jax.jit(encode), jax.jit(decode)

  def encode(self, video: Any) -> np.ndarray:
    """Turns a video, or a batch of them, into ids.

    A length that is not 1 + k * st (of a tokenizer that is not causal: whole
    clips) and a size that is no multiple of the strides are padded by repeating
    the last frame, line and column; give `decode` the original `frames` and
    `size` to undo it.

    Args:
      video: [t h w 3] or [b t h w 3]; uint8, or floats in [-1, 1].

    Returns:
      int32 ids [T H W f] or [b T H W f]; `frames(T)` is t after padding.

    Raises:
      ValueError: another shape, type or range of pixels.
    """
    video = np.asarray(video)
    if video.ndim not in (4, 5):
      raise ValueError(
        f"a video of shape {video.shape} cannot be encoded; it must be "
        "[t h w 3] or [b t h w 3]"
      )
    batch = video if video.ndim == 5 else video[None]
    ids = np.concatenate(list(self.encode_stream([batch])), axis=1)
    return ids if video.ndim == 5 else ids[0]

  def decode(
    self,
    ids: Any,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
  ) -> np.ndarray:
    """Turns ids back into a video.

    Args:
      ids: integers [T H W f] or [b T H W f].
      frames: frames to return; None keeps those of padding.
      size: (lines, columns) to return; None keeps those of padding.

    Returns:
      float32 [t h w 3] or [b t h w 3] in [-1, 1].

    Raises:
      ValueError: another shape, ids out of range, or more frames or pixels
        than the ids stand for.
    """
    ids = np.asarray(ids)
    if ids.ndim not in (4, 5):
      raise ValueError(
        f"ids of shape {ids.shape} cannot be decoded; they must be [T H W f] "
        "or [b T H W f]"
      )
    batch = ids if ids.ndim == 5 else ids[None]
    pieces = self.decode_stream([batch], frames=frames, size=size)
    video = np.concatenate(list(pieces), axis=1)
    return video if ids.ndim == 5 else video[0]

  def frames(self, latents: int) -> int:
    """Frames that so many latent frames stand for."""
    st, whole = self.strides[0], self._whole()
    alone = self._alone * (-(-latents // whole) if whole else 1)
    return alone + (latents - alone) * st

  def encode_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Encodes a video that arrives in pieces, in constant memory.

    Args:
      pieces: [b n h w 3] of any lengths n; uint8, or floats in [-1, 1].

    Yields:
      int32 ids [b N H W f], in order.
    """
    st, sh, sw = self.strides
    pieces, (_, _, h, w, _) = _peek(pieces)
    height, width = -(-h // sh), -(-w // sw)
    tiles, k = self._plan(height, width)
    carries = [None] * len(tiles)
    for first, part in self._parts(map(_checked, pieces), k, st):
      # What fills a clip that is coded as a whole stays: its other tokens mean
      # nothing without these.
      kept = self._whole() or first + -(-(part.shape[1] - first) // st)
      # A last piece is filled up, so that only first ones come in many
      # lengths; nothing follows that could see the repeated frames.
      latents = k if self.causal and not first else kept
      part = tiling.pad_to(part, 1, first + (latents - first) * st)
      part = tiling.pad_to(part, 2, height * sh)
      part = tiling.pad_to(part, 3, width * sw)
      shape = (len(part), latents, height, width, len(self.sizes))
      ids = np.empty(shape, np.int32)
      for i, tile in enumerate(tiles):
        carries[i], out = self._encode(
          self._params, carries[i], tile.view(part, sh, sw)
        )
        tile.put(ids, np.asarray(out))
      yield ids[:, :kept]

  def decode_stream(
    self,
    pieces: Iterable[np.ndarray],
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
  ) -> Iterator[np.ndarray]:
    """Decodes ids that arrive in pieces, in constant memory.

    Args:
      pieces: integers [b N H W f] of any lengths N.
      frames: frames to yield in all; None is all.
      size: (lines, columns) to yield; None is all.

    Yields:
      float32 [b n h w 3] in [-1, 1], in order.
    """
    if frames is not None and frames < 1:
      raise ValueError(f"frames is {frames}; it must be at least 1")
    if size is not None and min(size) < 1:
      raise ValueError(f"size is {size}; height and width are at least 1")
    st, sh, sw = self.strides
    pieces, (_, _, height, width, _) = _peek(pieces)
    h, w = size or (height * sh, width * sw)
    if not (0 < h <= height * sh and 0 < w <= width * sw):
      raise ValueError(
        f"{height}x{width} tokens decode to {height * sh}x{width * sw} "
        f"pixels; size={(h, w)} must lie within them"
      )
    tiles, k = self._plan(height, width)
    carries = [None] * len(tiles)
    left = frames
    for first, part in self._parts(map(self._checked_ids, pieces), k, 1):
      count = first + (part.shape[1] - first) * st
      if self.causal and not first:
        part = tiling.pad_to(part, 1, k)
      self._check_clip(part.shape[1])
      made = [None] * len(tiles)
      for i, tile in enumerate(tiles):
        carries[i], out = self._decode(
          self._params, carries[i], tile.view(part)
        )
        made[i] = np.asarray(out)
      video = _blend(tiles, made, (height * sh, width * sw), (sh, sw))
      count = count if left is None else min(count, left)
      left = left if left is None else left - count
      if count:
        yield video[:, :count, :h, :w]
    if left:
      raise ValueError(
        f"the ids decode to {frames - left} frames; frames={frames} must not "
        "be more"
      )

  def _parts(
    self, pieces: Iterator[np.ndarray], k: int, scale: int
  ) -> Iterator[tuple[int, np.ndarray]]:
    """(frames coded alone at its start, piece of k * scale more) in turn."""
    later = 0 if self.causal else self._alone
    starts = itertools.chain([self._alone], itertools.repeat(later))
    parts = tiling.regroup(pieces, self._alone + k * scale, later + k * scale)
    return zip(starts, parts, strict=False)

  def _plan(self, height: int, width: int) -> tuple[list[tiling.Tile], int]:
    """Tiles of a grid of tokens, and latent frames per piece after a start."""
    st, sh, sw = self.strides
    tiles = tiling.tiles((height, width), (sh, sw), self._tile, self._overlap)
    if not self.causal:
      return tiles, (self._whole() or sys.maxsize // st) - self._alone
    fit = PIECE_PIXELS // (height * sh * width * sw * st)
    return tiles, min(max(fit, 1), LATENTS_PER_PIECE)

  def _whole(self) -> int:
    """Latent frames of a clip that is coded as a whole; 0 if any number is."""
    st, alone = self.strides[0], self._alone
    return alone + (self._clip - alone) // st if self._clip else 0

  def _check_clip(self, latents: int) -> None:
    """Refuses a part of a clip that is coded as a whole."""
    whole = self._whole()
    if whole and latents != whole:
      raise ValueError(
        f"{latents} latent frames are left over; this tokenizer is not causal "
        f"and decodes clips of {whole} latent frames ({self._clip} frames), "
        "each as a whole: give all the ids that encode made"
      )

  def _checked_ids(self, ids: np.ndarray) -> np.ndarray:
    """Refuses ids that this tokenizer cannot have made."""
    if ids.ndim != 5 or ids.shape[-1] != len(self.sizes):
      raise ValueError(
        f"ids have shape {ids.shape}; this tokenizer decodes [T H W f] or "
        f"[b T H W f] with f = {len(self.sizes)}"
      )
    if not np.issubdtype(ids.dtype, np.integer):
      raise ValueError(f"ids are {ids.dtype}; they must be integers")
    if ids.size and (ids.min() < 0 or (ids >= self.sizes).any()):
      raise ValueError(
        f"ids lie in {ids.min()}..{ids.max()}; this tokenizer has "
        f"{self.sizes} ids per factor: they come from another one"
      )
    return ids.astype(np.int32)


def to_float(video: jax.Array) -> jax.Array:
  """uint8 pixels to float32 in [-1, 1]; floats stay as they are."""
  scaled = video.astype(jnp.float32)
  return scaled / 127.5 - 1 if video.dtype == jnp.uint8 else scaled


def _blend(
  tiles: list[tiling.Tile],
  made: list[np.ndarray],
  size: tuple[int, int],
  strides: tuple[int, int],
) -> np.ndarray:
  """Lays decoded tiles [b n h w 3] over one another into whole frames."""
  if len(tiles) == 1:
    return made[0]
  video = np.zeros((*made[0].shape[:2], *size, 3), np.float32)
  for tile, part in zip(tiles, made, strict=True):
    view = tile.view(video, *strides)
    view += tile.weight * part
  return video


def _checked(video: np.ndarray) -> np.ndarray:
  """Refuses what is not a batch of videos in the range of pixels."""
  if video.ndim != 5 or video.shape[-1] != 3 or not all(video.shape):
    raise ValueError(
      f"a video of shape {video.shape} cannot be encoded; it must be "
      "[t h w 3] or [b t h w 3] with at least one of each"
    )
  if video.dtype == np.uint8:
    return video
  if not jnp.issubdtype(video.dtype, jnp.floating):
    raise ValueError(
      f"pixels are {video.dtype}; they must be uint8 or floats in [-1, 1]"
    )
  low, high = float(video.min()), float(video.max())
  if not (low >= -1.001 and high <= 1.001):
    raise ValueError(
      f"float pixels lie in [{low:.4g}, {high:.4g}]; they must lie in "
      "[-1, 1]: give uint8, or divide 0..255 by 127.5 and subtract 1"
    )
  return video.astype(np.float32)


def _peek(pieces: Iterable[np.ndarray]) -> tuple[Iterator, tuple[int, ...]]:
  """The stream again, and the shape of its first piece."""
  pieces = iter(pieces)
  head = next(pieces, None)
  if head is None:
    raise ValueError("the stream is empty; a video has at least one frame")
  if head.ndim != 5:
    raise ValueError(
      f"a piece has shape {head.shape}; it must be [b n h w 3] for pixels and "
      "[b N H W f] for ids"
    )
  return itertools.chain([head], pieces), head.shape
