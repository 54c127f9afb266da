"""Reading and writing of video files."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest

from helpers import video_files
from helpers.errors import error_names
from magvit_jax.data import video_io, video_write


@pytest.fixture
def decoded(monkeypatch):
  """A list that grows by one for each frame a decoder gives."""
  seen = []
  original = video_io._decode

  def counting(container, stream):
    for frame in original(container, stream):
      seen.append(frame.pts)
      yield frame

  monkeypatch.setattr(video_io, "_decode", counting)
  return seen


def ramp(frames=40):
  return video_files.pictures(frames)


def expected(video):
  return pytest.approx(video_files.level(video), abs=2.5)


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm", "avi"])
def test_frames_come_in_order_from_any_start(tmp_path, extension):
  video = ramp()
  path = tmp_path / f"a.{extension}"
  video_write.write_video(path, video, 25, quality=10)
  assert video_io.probe(path).frames == 40
  whole = video_io.read_all(path)
  assert video_files.level(whole) == expected(video)
  clip = video_io.read_clip(path, 17, 5, stride=3)
  np.testing.assert_array_equal(clip, whole[17:30:3])


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_seeking_finds_every_frame_among_reordered_ones(tmp_path, extension):
  path = tmp_path / f"a.{extension}"
  video_files.write(path, ramp(), gop=7)
  whole = video_io.read_all(path)
  for start in range(39):
    clip = video_io.read_clip(path, start, 2)
    np.testing.assert_array_equal(clip, whole[start : start + 2])


def test_a_seek_that_lands_too_late_is_repeated(tmp_path, monkeypatch):
  path = tmp_path / "a.mp4"
  video_files.write(path, ramp(), gop=7)
  wanted = video_io.read_clip(path, 10, 2)
  monkeypatch.setattr(video_io, "_SEEKS", (-0.6, None))
  np.testing.assert_array_equal(video_io.read_clip(path, 10, 2), wanted)


def test_gif_holds_all_frames(tmp_path):
  video = ramp(6)
  video_write.write_video(tmp_path / "a.gif", video, 10)
  assert video_io.probe(tmp_path / "a.gif").fps == 10
  back = video_io.read_all(tmp_path / "a.gif")
  assert video_files.level(back) == expected(video)
  clip = video_io.read_clip(tmp_path / "a.gif", 3, 2)
  np.testing.assert_array_equal(clip, back[3:5])


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
  path = tmp_path / "a.mp4"
  video_files.write(path, ramp(3), rotation=rotation)
  info = video_io.probe(path)
  assert info.rotation == rotation
  assert (info.height, info.width) == ((64, 48), (48, 64))[rotation == 180]
  upright = np.rot90(ramp(3), rotation // 90, axes=(1, 2))
  back = video_io.read_all(path)
  assert back.shape == upright.shape
  assert np.abs(back.astype(int) - upright).mean() < 4
  half = video_io.read_clip(path, 0, 1, lines=info.height // 2)
  assert half.shape[1:3] == (info.height // 2, info.width // 2)
  small = upright[:1, ::2, ::2]
  assert np.abs(half.astype(int) - small).mean() < 8


@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "avi", "gif"])
def test_odd_sizes_are_written_whole(tmp_path, extension):
  video = video_files.pictures(3, 33, 47)
  path = tmp_path / f"a.{extension}"
  assert video_write.write_video(path, iter(video), 25) == 3
  back = video_io.read_all(path)
  assert back.shape == video.shape
  assert np.abs(back.astype(int) - video).mean() < 6


def test_long_file_is_not_decoded_for_a_short_clip(tmp_path, decoded):
  path = tmp_path / "a.mp4"
  video_files.write(path, ramp(120), gop=10)
  clip = video_io.read_clip(path, 95, 4)
  assert video_files.level(clip) == expected(ramp(120)[95:99])
  assert len(decoded) <= 4 + 2 * 10
  decoded.clear()
  video_io.read_clip(path, 0, 2)
  assert len(decoded) <= 3


def test_resampling_takes_the_nearest_frame(tmp_path):
  path = tmp_path / "a.mp4"
  video_files.write(path, ramp(30), 30)
  whole = video_io.read_all(path)
  assert video_io.count_frames(path, 10) == 10
  np.testing.assert_array_equal(
    video_io.read_clip(path, 2, 3, fps=10), whole[[6, 9, 12]]
  )
  np.testing.assert_array_equal(
    video_io.read_clip(path, 2, 3, stride=2, fps=10), whole[[6, 12, 18]]
  )
  np.testing.assert_array_equal(
    video_io.read_clip(path, 1, 4, fps=60), whole[[0, 1, 1, 2]]
  )
  np.testing.assert_array_equal(video_io.read_all(path, fps=10), whole[::3])


def test_variable_rate_counts_frames_and_resamples_by_time(tmp_path):
  path = tmp_path / "a.mp4"
  stamps = [0, 1, 2, 3, 10, 11, 12, 20]
  video_files.write(path, ramp(8), 10, stamps=stamps)
  whole = video_io.read_all(path)
  assert video_files.level(whole) == expected(ramp(8))
  np.testing.assert_array_equal(video_io.read_clip(path, 4, 3), whole[4:7])
  np.testing.assert_array_equal(
    video_io.read_clip(path, 8, 4, fps=10), whole[[4, 4, 4, 5]]
  )


def test_read_frames_holds_few_pictures(tmp_path):
  path = tmp_path / "a.mp4"
  frames = 90
  picture = video_files.pictures(1, 240, 320)[0]
  video_write.write_video(path, (picture for _ in range(frames)), 25)
  video_io.probe(path)
  tracemalloc.start()
  count = sum(1 for _ in video_io.read_frames(path))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert count == frames
  assert peak < 10 * picture.nbytes


def test_images_are_videos_of_one_frame(tmp_path):
  picture = video_files.pictures(1)[0]
  path = tmp_path / "a.png"
  PIL.Image.fromarray(picture).save(path)
  assert video_io.probe(path) == video_io.Info(64, 48, Fraction(1), 1, 0, False)
  np.testing.assert_array_equal(video_io.read_all(path)[0], picture)
  assert video_io.read_clip(path, 0, 1, lines=24).shape == (1, 24, 32, 3)
  with error_names(OSError, path, "0 to 1", 1):
    video_io.read_clip(path, 0, 2)
  turned = tmp_path / "turned.jpg"
  exif = PIL.Image.Exif()
  exif[PIL.ExifTags.Base.Orientation] = 6  # a quarter, as phones write it
  PIL.Image.fromarray(picture).save(turned, exif=exif)
  info = video_io.probe(turned)
  assert (info.width, info.height) == (48, 64)
  assert video_io.read_all(turned).shape == (1, 64, 48, 3)


@pytest.mark.parametrize(
  ("lines", "least", "size"),
  [
    (None, (1, 1), (48, 64)),
    (24, (1, 1), (24, 32)),
    (24, (30, 30), (30, 40)),
    (24, (8, 64), (48, 64)),
  ],
)
def test_fit_keeps_the_aspect_and_covers_the_crop(lines, least, size):
  assert video_io.fit(48, 64, lines, least) == size


def cut(path, share):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])


def test_unreadable_files_are_named(tmp_path):
  text = tmp_path / "text.mp4"
  text.write_text("not a video")
  empty = tmp_path / "empty.webm"
  empty.write_bytes(b"")
  image = tmp_path / "image.png"
  image.write_text("not an image")
  headless = tmp_path / "headless.mp4"
  video_files.write(headless, ramp(20))
  cut(headless, 0.5)
  for path in (text, empty, image, headless, tmp_path / "absent.mp4"):
    with error_names(OSError, path.name):
      video_io.probe(path)
    with error_names(OSError, path.name):
      list(video_io.read_frames(path))


def test_truncated_file_with_an_index_is_noticed(tmp_path):
  path = tmp_path / "cut.mp4"
  video_files.write(path, ramp(60), faststart=True, gop=10)
  cut(path, 0.6)
  assert video_io.probe(path).frames == 60
  assert video_io.read_clip(path, 0, 3).shape[0] == 3
  with error_names(OSError, path):
    video_io.read_clip(path, 50, 5)
  with error_names(OSError, path):
    video_io.read_all(path)


def test_sound_is_reported(tmp_path):
  path = tmp_path / "a.mp4"
  with av.open(str(path), "w") as container:
    video = container.add_stream("libx264", rate=25)
    video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
    sound = container.add_stream("aac", rate=8000)
    for picture in ramp(4):
      container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
    container.mux(video.encode(None))
    silence = np.zeros((1, 1024), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
    frame.sample_rate = 8000
    container.mux(sound.encode(frame))
    container.mux(sound.encode(None))
  assert video_io.probe(path).has_audio
  video_files.write(tmp_path / "b.mp4", ramp(4))
  assert not video_io.probe(tmp_path / "b.mp4").has_audio


def test_fractional_rates_are_kept(tmp_path):
  path = tmp_path / "a.mp4"
  video_write.write_video(path, ramp(4), 30000 / 1001)
  assert video_io.probe(path).fps == Fraction(30000, 1001)


@pytest.mark.parametrize("extension", ["mp4", "webm"])
def test_colours_come_back_and_are_labelled(tmp_path, extension):
  path = tmp_path / f"a.{extension}"
  picture = np.full((64, 64, 3), (200, 30, 40), np.uint8)
  video_write.write_video(path, [picture] * 3, 25, quality=5)
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
    assert frame.colorspace in (5, 6)  # the two names of BT.601's matrix
  back = video_io.read_all(path).astype(int)
  assert np.abs(back - picture).max() <= 4


def test_writer_leaves_nothing_behind_when_it_fails(tmp_path):
  def broken():
    yield from ramp(9)
    assert list(tmp_path.iterdir())
    raise RuntimeError("stop")

  with error_names(RuntimeError, "stop"):
    video_write.write_video(tmp_path / "a.avi", broken(), 25)
  with error_names(ValueError, "frames"):
    video_write.write_video(tmp_path / "a.mp4", [], 25)
  with error_names(ValueError, "float64", "uint8", "(8, 8, 3)"):
    video_write.write_video(tmp_path / "a.mp4", np.zeros((2, 8, 8, 3)), 25)
  with error_names(ValueError, 1, "(46, 64, 3)", "(48, 64, 3)"):
    video_write.write_video(
      tmp_path / "a.mp4", [ramp(1)[0], ramp(1)[0, :-2]], 25
    )
  assert not list(tmp_path.iterdir())
  with error_names(ValueError, tmp_path / "a.xyz", ".xyz", ".mp4"):
    video_write.write_video(tmp_path / "a.xyz", ramp(1), 25)
  with error_names(OSError, tmp_path / "no"):
    video_write.write_video(tmp_path / "no" / "a.mp4", ramp(1), 25)
