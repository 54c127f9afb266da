"""The object a user holds, on a toy tokenizer whose arithmetic is exact.

Its ids depend on the pixels around and before them, so that a wrong tile, pad
or carry changes them; sums of small integers do not depend on their order.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import magvit_jax
from helpers.errors import error_names
from magvit_jax.checkpoints import checksum
from magvit_jax.data import transforms
from magvit_jax.inference import video_codec


class Toy:
  """Ids: sums over 8x8 blocks of a blurred frame and of the one 4 before."""

  strides = (4, 8, 8)
  backbone = types.SimpleNamespace(causal=True)
  quantizer = types.SimpleNamespace(sizes=(1 << 20, 2))

  def apply(self, variables, *args, method):
    assert variables["params"]["w"] is not None
    return method(*args)

  def encode_chunk(self, carry, video):
    first = int(carry is None)
    assert video.shape[1] % 4 == first, video.shape
    x = jnp.round((video.sum(-1) + 3) * 127.5)
    x = x[:, ::4] if first else x[:, 3::4]
    x = sum(
      jnp.roll(jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), shift, axis)
      for shift, axis in [(0, 2), (1, 2), (-1, 2), (1, 3), (-1, 3)]
    )[:, :, 1:-1, 1:-1]
    carry = x[:, :1] if first else carry
    both = x + 2 * jnp.concatenate([carry, x[:, :-1]], axis=1)
    b, t, h, w = both.shape
    ids = both.reshape(b, t, h // 8, 8, w // 8, 8).sum((3, 5)).astype(int)
    return x[:, -1:], jnp.stack([ids, ids % 2], axis=-1)

  def decode_chunk(self, carry, ids):
    first = carry is None
    x = ids[..., :1] / 2**20 + ids[..., 1:]
    around = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    y = (around[:, :, :-2, 1:-1] + around[:, :, 1:-1, 2:]) / 4
    carry = y[:, :1] if first else carry
    slow = (y + jnp.concatenate([carry, y[:, :-1]], axis=1)) / 2
    video = slow.repeat(4, 1).repeat(8, 2).repeat(8, 3).repeat(3, 4)
    return y[:, -1:], video[:, 3 * first :]


class Whole(Toy):
  """A toy that is not causal: ids depend on every frame of their clip."""

  backbone = types.SimpleNamespace(causal=False)

  def encode(self, video):
    """The toy's sums of every fourth frame, twice that of the last added."""
    first = self.encode_chunk(None, video[:, 3::4][:, :1])[1]
    rest = self.encode_chunk(None, video[:, 3:])[1][:, 1:]
    ids = jnp.concatenate([first, rest], axis=1)
    return ids.at[..., 0].add(2 * ids[:, -1:, ..., 0] % 1000)

  def decode(self, ids):
    video = self.decode_chunk(ids[:, :1, ..., :1] / 2**20, ids)[1]
    return video * ids[:, -1:].mean((1, 2, 3, 4), keepdims=True) / 2**19


def codec(**kwargs):
  return video_codec.Codec(Toy(), {"w": np.ones(3, np.float32)}, **kwargs)


@pytest.fixture(scope="module")
def tok():
  return codec()


def pixels(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@jax.jit
def at_once(video):
  """(ids, video) of the toy without pieces or tiles."""
  ids = Toy().encode_chunk(None, video_codec.to_float(video))[1]
  return ids, Toy().decode_chunk(None, ids)[1]


@pytest.mark.parametrize("t", [1, 2, 17, 18, 50])
def test_pieces_over_time_give_the_ids_of_the_whole(tok, t):
  video = pixels(t, 24, 16)
  whole = video_codec.tiling.pad_to(video, 0, 1 + -(-(t - 1) // 4) * 4)
  ids, back = at_once(whole[None])
  np.testing.assert_array_equal(tok.encode(video), ids[0])
  np.testing.assert_allclose(
    tok.decode(ids[0], frames=t), back[0, :t], atol=1e-6
  )


@pytest.mark.parametrize("h,w", [(128, 300), (299, 64), (137, 211)])
def test_tiles_give_the_ids_and_pixels_of_the_whole(h, w):
  video = pixels(10, h, w)
  whole, tiled = codec(), codec(tile=128, overlap=32)
  ids = tiled.encode(video)
  assert ids.shape == (4, -(-h // 8), -(-w // 8), 2)
  np.testing.assert_array_equal(ids, whole.encode(video))
  size = dict(frames=10, size=(h, w))
  back = tiled.decode(ids, **size)
  assert back.shape == video.shape
  np.testing.assert_allclose(back, whole.decode(ids, **size), atol=1e-6)


def test_odd_sizes_are_padded_by_repeating_the_border(tok):
  video = pixels(6, 13, 21)
  padded = np.pad(video, ((0, 3), (0, 3), (0, 3), (0, 0)), mode="edge")
  np.testing.assert_array_equal(tok.encode(video), tok.encode(padded))
  back = tok.decode(tok.encode(video), frames=6, size=(13, 21))
  whole = tok.decode(tok.encode(padded))
  assert back.shape == (6, 13, 21, 3) and whole.shape == (9, 16, 24, 3)
  np.testing.assert_array_equal(back, whole[:6, :13, :21])


def test_batches_floats_and_jax_arrays_are_the_same_video(tok):
  video = pixels(2, 9, 16, 16)
  ids = tok.encode(video)
  assert ids.dtype == np.int32 and ids.shape == (2, 3, 2, 2, 2)
  np.testing.assert_array_equal(tok.encode(video[1]), ids[1])
  np.testing.assert_array_equal(tok.encode(video / 127.5 - 1), ids)
  np.testing.assert_array_equal(tok.encode(jnp.asarray(video)), ids)
  back = tok.decode(ids)
  assert back.dtype == np.float32 and np.abs(back).max() <= 1
  np.testing.assert_array_equal(tok.decode(jnp.asarray(ids[1])), back[1])


def test_a_tokenizer_that_is_not_causal_codes_each_clip_alone():
  tok = video_codec.Codec(Whole(), {"w": np.ones(3)}, clip=8)
  video = pixels(21, 16, 24)  # 2 clips and 5 frames of a third
  clips = video_codec.tiling.pad_to(video, 0, 24).reshape(3, 8, 16, 24, 3)
  floats = video_codec.to_float(jnp.asarray(clips))
  alone = jax.jit(Whole().encode)(floats)
  ids = tok.encode(video)
  np.testing.assert_array_equal(ids, alone.reshape(6, 2, 3, 2))
  assert tok.frames(len(ids)) == 24
  pieces = [video[None, i : i + 1] for i in range(21)]
  streamed = np.concatenate(list(tok.encode_stream(pieces)), axis=1)
  np.testing.assert_array_equal(streamed[0], ids)
  back = tok.decode(ids, frames=21)
  again = [np.clip(Whole().decode(x[None])[0], -1, 1) for x in alone]
  np.testing.assert_allclose(back, np.concatenate(again)[:21], atol=1e-6)
  with error_names(ValueError, 1, 2):
    tok.decode(ids[:5])


def test_without_a_clip_length_it_codes_the_whole_video():
  tok = video_codec.Codec(Whole(), {"w": np.ones(3)})
  video = pixels(11, 16, 16)
  padded = video_codec.tiling.pad_to(video, 0, 12)[None]
  whole = jax.jit(Whole().encode)(video_codec.to_float(jnp.asarray(padded)))
  np.testing.assert_array_equal(tok.encode(video), whole[0])
  assert tok.decode(tok.encode(video), frames=11).shape == video.shape


def test_the_stream_reads_no_further_than_the_piece_it_needs():
  read = 0

  def frames():
    nonlocal read
    for _ in range(200):
      read += 1
      yield pixels(1, 1, 8, 8)

  given = 0
  for ids in codec().encode_stream(frames()):
    given += ids.shape[1]
    assert read <= 1 + 4 * (given - 1) + 1
  assert given == 51 and read == 200


def test_two_programs_serve_videos_of_any_length():
  tok = codec()
  for t in (20, 33, 50, 61):
    tok.decode(tok.encode(pixels(t, 16, 16)))
  assert tok._encode._cache_size() == 2
  assert tok._decode._cache_size() == 2


@pytest.mark.parametrize(
  "video,named",
  [
    (pixels(9, 16), ["(9, 16, 3)"]),
    (pixels(0, 16, 16), ["(1, 0, 16, 16, 3)"]),
    (pixels(9, 16, 16).astype(np.float32), ["[0, 255]", "[-1, 1]"]),
    (pixels(9, 16, 16).astype(np.int64), ["int64", "uint8"]),
    (np.full((9, 16, 16, 3), np.nan, np.float32), ["[nan, nan]"]),
    (np.zeros((9, 16, 16, 4), np.uint8), ["(1, 9, 16, 16, 4)"]),
  ],
)
def test_what_is_not_a_video_is_refused(tok, video, named):
  with error_names(ValueError, *named):
    tok.encode(video)


@pytest.mark.parametrize(
  "change,named",
  [
    (lambda ids: (ids[..., :1], {}), ["(1, 3, 2, 2, 1)", "f = 2"]),
    (lambda ids: (ids + 2, {}), ["(1048576, 2)"]),
    (lambda ids: (ids - 99999, {}), ["(1048576, 2)"]),
    (lambda ids: (ids / 2, {}), ["float64"]),
    (lambda ids: (ids[0], {}), ["(2, 2, 2)"]),
    (lambda ids: (ids, {"frames": 10}), ["frames=10", 9]),
    (lambda ids: (ids, {"size": (17, 16)}), ["size=(17, 16)", "16x16"]),
  ],
)
def test_ids_of_another_tokenizer_are_refused(tok, change, named):
  ids, kwargs = change(tok.encode(pixels(9, 16, 16)))
  with error_names(ValueError, *named):
    tok.decode(ids, **kwargs)


def test_the_fingerprint_changes_with_any_weight_name_or_shape():
  base = {"a": np.zeros(4, np.float32), "b": np.ones(2, np.float32)}
  bumped = {**base, "b": np.array([1, np.nextafter(np.float32(1), 2)])}
  renamed = {"a": base["a"], "c": base["b"]}
  shaped = {**base, "a": np.zeros((2, 2), np.float32)}
  prints = [checksum.fingerprint(p) for p in (base, bumped, renamed, shaped)]
  assert len(set(prints)) == 4
  assert (
    checksum.fingerprint({k: jnp.asarray(v) for k, v in base.items()}) in prints
  )


def test_pixels_survive_the_way_to_float_and_back():
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(
    transforms.to_uint8(np.asarray(video_codec.to_float(jnp.asarray(levels)))),
    levels,
  )


def test_the_public_names_are_found_and_others_are_named():
  assert magvit_jax.load_tokenizer is video_codec.load_tokenizer
  with error_names(AttributeError, "load_tokeniser", "load_tokenizer"):
    _ = magvit_jax.load_tokeniser


def test_a_missing_workdir_is_named(tmp_path):
  with error_names(FileNotFoundError, tmp_path / "nowhere"):
    magvit_jax.load_tokenizer(tmp_path / "nowhere")
