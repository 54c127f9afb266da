"""Videos as people have them: containers, codecs, times, shapes, pixels."""

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest

from helpers import video_files
from helpers.errors import error_names
from magvit_jax.data import _pixels, video_io, video_write

FRAMES, HEIGHT, WIDTH = 23, 32, 80


def bar(k: int) -> np.ndarray:
  """Picture k of a film: a white bar 3 columns further each time."""
  picture = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
  picture[:, 3 * k : 3 * k + 6] = 255
  return picture


def place(picture: np.ndarray) -> int | None:
  """The k of `bar(k)`."""
  white = np.nonzero(picture[len(picture) // 2, :, 0] > 140)[0]
  return round((white.mean() - 2.5) / 3) if len(white) else None


def encode(codec: str, pix_fmt: str = "yuv420p", **options) -> list[av.Packet]:
  """The packets of the film, with B-frames where the codec has them."""
  context = av.CodecContext.create(codec, "w")
  context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, pix_fmt
  context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
  context.gop_size = 8
  if codec in ("libx264", "mpeg4", "mpeg2video", "libx265"):
    context.max_b_frames = 2
  context.options = {k: str(v) for k, v in options.items()}
  context.bit_rate = 4_000_000
  packets = []
  for k in range(FRAMES):
    frame = av.VideoFrame.from_ndarray(bar(k)).reformat(format=pix_fmt)
    frame.pts, frame.time_base = k, Fraction(1, 25)
    packets += context.encode(frame)
  return packets + context.encode(None)


def mux(path, codec: str, packets: list[av.Packet], pix_fmt="yuv420p") -> str:
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
    stream.codec_context.gop_size = 8
    if codec in ("libx264", "mpeg4", "mpeg2video", "libx265"):
      stream.codec_context.max_b_frames = 2
    for packet in packets:
      packet.stream = stream
      container.mux(packet)
  return str(path)


def film(path, codec: str, pix_fmt: str = "yuv420p", **options) -> str:
  """Writes the film through one encoder, headers and all."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
    stream.codec_context.gop_size = 8
    if codec in ("libx264", "mpeg4", "mpeg2video"):
      stream.codec_context.max_b_frames = 2
    stream.options = {k: str(v) for k, v in options.items()}
    for k in range(FRAMES):
      frame = av.VideoFrame.from_ndarray(bar(k))
      frame.pts, frame.time_base = k, Fraction(1, 25)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return str(path)


def decoder_order(path: str) -> list[int | None]:
  with av.open(path) as container:
    frames = container.decode(video=0)
    return [place(frame.to_ndarray(format="rgb24")) for frame in frames]


def check_order(path: str) -> None:
  """What is read is what the decoder gives, whole and from any start."""
  wanted = decoder_order(path)
  assert [place(x) for x in video_io.read_all(path)] == wanted
  assert video_io.probe(path).frames == len(wanted)
  for start in range(len(wanted) - 1):
    clip = [place(x) for x in video_io.read_clip(path, start, 2)]
    assert clip == wanted[start : start + 2]


X264 = {"bf": 3, "b_strategy": 0, "preset": "ultrafast", "qp": 10}
FILES = [
  *itertools.product(
    ("avi", "mp4", "mov", "mkv"), ("libx264", "mpeg4", "mpeg2video", "mjpeg")
  ),
  ("webm", "libvpx"),
  ("mkv", "libvpx-vp9"),
  ("avi", "ffv1"),
]


@pytest.mark.parametrize("extension, codec", FILES)
def test_frames_are_those_of_the_decoder(tmp_path, extension, codec):
  options = {
    "libx264": X264,
    "libvpx": {"auto-alt-ref": 1, "lag-in-frames": 8, "deadline": "realtime"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": 8},
  }.get(codec, {})
  pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
  path = film(tmp_path / f"a.{extension}", codec, pix_fmt, **options)
  check_order(path)
  assert video_io.probe(path).fps == 25


def packed(packets: list[av.Packet]) -> list[bytes]:
  """MPEG-4 as DivX writes it into AVI: B-frames packed behind their anchors."""

  def kind(data):  # 0 I, 1 P, 2 B
    return data[data.index(b"\0\0\1\xb6") + 4] >> 6

  data, out = [bytes(p) for p in packets], []
  while data:
    head, run = data.pop(0), []
    if kind(head) == 0:
      at = head.index(b"\0\0\1\xb6")
      head = head[:at] + b"\0\0\1\xb2DivX503b1393p" + head[at:]
    while data and kind(data[0]) == 2:
      run.append(data.pop(0))
    empty = b"\0\0\1\xb6\x50\0"
    out += [head + run[0], *run[1:], empty] if run else [head]
  return out


@pytest.mark.parametrize("extension", ["avi", "mkv", "mp4"])
def test_packed_b_frames(tmp_path, extension):
  packets = []
  for k, data in enumerate(packed(encode("mpeg4", b_strategy=0))):
    packet = av.Packet(data)
    packet.dts = packet.pts = k
    packet.time_base, packet.is_keyframe = Fraction(1, 25), k == 0
    packets.append(packet)
  path = mux(tmp_path / f"a.{extension}", "mpeg4", packets)
  check_order(path)


@pytest.mark.parametrize("extension", ["avi", "mkv", "mp4"])
def test_packets_before_the_first_frame_that_can_be_shown(tmp_path, extension):
  """A stream cut between keyframes begins at the next one."""
  whole = film(tmp_path / f"whole.{extension}", "libx264", **X264)
  path = str(tmp_path / f"cut.{extension}")
  with av.open(whole) as source, av.open(path, "w") as container:
    stream = container.add_stream_from_template(source.streams.video[0])
    packets = [p for p in source.demux(video=0) if p.size]
    for packet in packets[3:]:
      packet.stream = stream
      container.mux(packet)
  wanted = decoder_order(path)
  assert 0 < len(wanted) < FRAMES - 2
  check_order(path)


@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "mov"])
@pytest.mark.parametrize("seed", [0, 1])
def test_fps_is_the_mean_of_uneven_times(tmp_path, extension, seed):
  times = np.cumsum(np.random.default_rng(seed).integers(20, 200, 30))
  codec = "libvpx" if extension == "webm" else "libx264"
  path = video_files.write(
    tmp_path / f"a.{extension}",
    video_files.pictures(30),
    1000,
    codec=codec,
    stamps=[int(t) for t in times],
  )
  mean = 29 * 1000 / (times[-1] - times[0])
  assert float(video_io.probe(path).fps) == pytest.approx(mean, rel=0.02)


RATES = [
  Fraction(1, 3600),
  Fraction(1, 1800),
  Fraction(1, 1000),
  0.1,
  Fraction(59000, 4013),
  Fraction(24000, 1001),
  29.97002997,
  240,
]


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("extension", ["mp4", "mkv", "avi", "webm"])
def test_written_rates_come_back(tmp_path, extension, fps):
  path = tmp_path / f"a.{extension}"
  video_write.write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 3, fps)
  info = video_io.probe(path)
  # Matroska keeps times in milliseconds.
  loose = 0.3 if extension in ("mkv", "webm") and fps == 240 else 1e-6
  loose = 0.02 if extension in ("mkv", "webm") and 10 < fps < 240 else loose
  assert info.frames == 3
  assert float(info.fps / Fraction(fps)) == pytest.approx(1, rel=loose)


@pytest.mark.parametrize("fps", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_named(tmp_path, fps):
  with error_names(ValueError, "fps", fps):
    video_write.write_video(tmp_path / "a.mp4", [], fps)
  assert not list(tmp_path.iterdir())


MATRICES = {  # (a, b, c, d) of the display matrix: how the picture is shown
  (1, 0, 0, 1): lambda x: x,
  (-1, 0, 0, 1): np.fliplr,
  (1, 0, 0, -1): np.flipud,
  (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
  (0, 1, -1, 0): lambda x: np.rot90(x, -1),
  (0, -1, 1, 0): np.rot90,
  (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
  (0, -1, -1, 0): lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrix_of_all_orientations(tmp_path, matrix):
  path = tmp_path / "a.mp4"
  video_write.write_video(path, video_files.pictures(2), 25, quality=0)
  plain = video_io.read_all(path)[0]
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 4 + 4 + 20 + 16
  a, b, c, d = (x << 16 for x in matrix)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path = tmp_path / "b.mp4"
  path.write_bytes(data)
  wanted = MATRICES[matrix](plain)
  np.testing.assert_array_equal(video_io.read_all(path)[0], wanted)
  info = video_io.probe(path)
  assert (info.height, info.width) == wanted.shape[:2]
  turned = np.fliplr(plain) if info.mirrored else plain
  np.testing.assert_array_equal(np.rot90(turned, info.rotation // 90), wanted)


@pytest.mark.parametrize(
  "flips", list(itertools.product([False, True], repeat=3))
)
def test_orientations_keep_every_pixel(flips):
  picture = np.arange(2 * 3 * 3).reshape(2, 3, 3)
  shown = _pixels.Orientation(*flips).apply(picture)
  assert shown.shape[:2] == _pixels.Orientation(*flips).shown(2, 3)
  np.testing.assert_array_equal(np.sort(shown.ravel()), np.arange(18))


def test_a_size_that_changes_is_scaled_to_the_first(tmp_path):
  path, packets = str(tmp_path / "a.webm"), []
  with av.open(path, "w") as container:
    stream = container.add_stream("libvpx", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for part, (h, w) in enumerate(((48, 64), (64, 48), (24, 32))):
      context = av.CodecContext.create("libvpx", "w")
      context.width, context.height, context.pix_fmt = w, h, "yuv420p"
      context.time_base = stream.time_base = Fraction(1, 1000)
      context.options = {"lag-in-frames": "0", "deadline": "realtime"}
      for k in range(4):
        level = np.full((h, w, 3), 20 * (4 * part + k), np.uint8)
        frame = av.VideoFrame.from_ndarray(level).reformat(format="yuv420p")
        frame.pts = 40 * (4 * part + k)
        frame.time_base = Fraction(1, 1000)
        packets += context.encode(frame)
      packets += context.encode(None)
    for packet in packets:
      packet.stream, packet.time_base = stream, Fraction(1, 1000)
      container.mux(packet)
  video = video_io.read_all(path)
  assert video.shape == (12, 48, 64, 3)
  levels = video.mean((1, 2, 3))
  np.testing.assert_allclose(levels, 20 * np.arange(12), atol=6)
  assert video_io.read_clip(path, 5, 3, lines=24).shape == (3, 24, 32, 3)


DEPTHS = [
  ("ffv1", "mkv", "gray"),
  ("ffv1", "mkv", "gray16le"),
  ("ffv1", "mkv", "yuv420p10le"),
  ("ffv1", "mkv", "yuv444p12le"),
  ("ffv1", "mkv", "yuv422p16le"),
  ("libx264", "mp4", "yuv444p"),
  ("libx264", "mp4", "yuv420p10le"),
  ("mjpeg", "avi", "yuvj420p"),
  ("png", "mov", "rgb48be"),
]


@pytest.mark.parametrize("codec, extension, pix_fmt", DEPTHS)
def test_bit_depths_keep_brightness(tmp_path, codec, extension, pix_fmt):
  video = np.stack([np.full((16, 16, 3), v, np.uint8) for v in (0, 90, 255)])
  path = video_files.write(
    tmp_path / f"a.{extension}", video, codec=codec, pix_fmt=pix_fmt
  )
  back = video_io.read_all(path)
  assert back.dtype == np.uint8
  np.testing.assert_allclose(back.mean((1, 2, 3)), (0, 90, 255), atol=4)


def rgba() -> np.ndarray:
  """Opaque gray on the left, half of it in the middle, hidden red right."""
  picture = np.full((16, 48, 4), 200, np.uint8)
  picture[:, :16, 3], picture[:, 16:32, 3] = 255, 128
  picture[:, 32:] = (255, 0, 0, 0)
  return picture


def test_alpha_is_composited_on_black(tmp_path):
  PIL.Image.fromarray(rgba()).save(tmp_path / "a.png")
  with av.open(str(tmp_path / "a.mov"), "w") as container:
    stream = container.add_stream("qtrle", rate=25)
    stream.width, stream.height, stream.pix_fmt = 48, 16, "argb"
    frame = av.VideoFrame.from_ndarray(rgba(), format="rgba")
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  for name in ("a.png", "a.mov"):
    (picture,) = video_io.read_all(tmp_path / name)
    levels = [picture[8, x].tolist() for x in (8, 24, 40)]
    np.testing.assert_allclose(
      levels, [[200] * 3, [100] * 3, [0] * 3], atol=2, err_msg=name
    )


def test_sixteen_bits_of_gray_in_an_image(tmp_path):
  gray = np.full((8, 8), 0x8000, np.uint16)
  PIL.Image.fromarray(gray).save(tmp_path / "a.png")
  (picture,) = video_io.read_all(tmp_path / "a.png")
  assert (picture == 128).all()


@pytest.mark.parametrize("extension", ["webp", "png", "gif"])
def test_animated_images_are_videos(tmp_path, extension):
  path = tmp_path / f"a.{extension}"
  frames = [PIL.Image.fromarray(bar(k)) for k in range(6)]
  frames[0].save(
    path,
    save_all=True,
    append_images=frames[1:],
    duration=40,
    disposal=1,
    **({"lossless": True} if extension == "webp" else {}),
  )
  assert [place(x) for x in video_io.read_all(path)] == list(range(6))
  assert [place(x) for x in video_io.read_clip(path, 2, 3)] == [2, 3, 4]
  info = video_io.probe(path)
  assert (info.frames, info.fps) == (6, 25)


def test_uneven_times_of_an_animated_image(tmp_path):
  frames = [PIL.Image.fromarray(bar(k)) for k in range(4)]
  frames[0].save(
    tmp_path / "a.webp",
    save_all=True,
    append_images=frames[1:],
    duration=[100, 300, 500, 100],
    lossless=True,
  )
  assert video_io.probe(tmp_path / "a.webp").fps == Fraction(3000, 900)
  at_ten = video_io.read_all(tmp_path / "a.webp", fps=10)
  assert [place(x) for x in at_ten] == [0, 1, 1, 2, 2, 2, 2, 3, 3, 3]


def test_a_damaged_image_is_named(tmp_path):
  frames = [PIL.Image.fromarray(bar(k)) for k in range(4)]
  for extension in ("webp", "png", "jpg"):
    path = tmp_path / f"a.{extension}"
    more = {} if extension == "jpg" else {"save_all": True}
    frames[0].save(path, append_images=frames[1:], **more)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(OSError) as caught:
      video_io.read_all(path)
    assert str(path) in str(caught.value)
