"""The verb sample, and the report of a generator, on a toy's workdir."""

import re

import numpy as np
import PIL.Image
import pytest
import toy_generator

from magvit_jax import __main__ as command
from magvit_jax import registry, report, sampler, token_file
from magvit_jax.cli import sample
from magvit_jax.data import transforms, video_io, video_write
from magvit_jax.report import made, page, sheets


@pytest.fixture(scope="module")
def gen():
  return sampler.load_generator(toy_generator.folder())


@pytest.fixture
def run(gen, tmp_path, monkeypatch):
  """Runs the verb with the toy in a folder that holds clip.mp4."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sampler, "load_generator", lambda *_, **__: gen)
  video_write.write_video("clip.mp4", toy_generator.clip(), 12, quality=0)

  def verb(*args):
    return command.main(["sample", "--workdir=W", "--num=2", *args])

  return verb


def test_samples_of_classes_in_turn(run, gen, capsys):
  assert run("--task=class_cond", "--out=a/b", "--seed=5") == 0
  assert "2 videos of 9x16x24" in capsys.readouterr().out
  expected = gen.sample_ids([0, 1], num=2, seed=5)
  for k in range(2):
    ids, meta = token_file.read(f"a/b/{k:03d}.npz")
    np.testing.assert_array_equal(ids, expected[k])
    assert meta.fingerprint == gen.tokenizer.fingerprint
    assert (meta.frames, meta.height, meta.width) == (9, 16, 24)
    info = video_io.probe(f"a/b/{k:03d}.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (9, 16, 24, 8)
  video = transforms.to_uint8(gen.decode(expected))
  luma = np.array([0.299, 0.587, 0.114])  # colour is stored at half the size
  written = video_io.read_all("a/b/001.mp4") @ luma
  errors = np.abs(video @ luma - written).mean((1, 2, 3))
  assert errors[1] < 0.7 * errors[0], errors
  with PIL.Image.open("a/b/sheet.png") as sheet:
    assert sheet.size[0] > 9 * 24


def test_flags_reach_the_decoding(run, gen):
  flags = ["--label=dog", "--steps=2", "--guidance=1.5", "--temperature=0.5"]
  assert run("--task=class_cond", "--out=o", *flags) == 0
  method = dict(steps=2, guidance=1.5, temperature=0.5)
  expected = gen.sample_ids("dog", num=2, **method)
  np.testing.assert_array_equal(token_file.read("o/001.npz")[0], expected[1])


def test_futures_of_a_clip(run, gen):
  assert run("--task=frame_prediction_5", "--input=clip.mp4", "--out=o") == 0
  clip = video_io.read_all("clip.mp4")
  expected = gen.predict_ids(clip, frames=5, num=2)
  for k in range(2):
    ids, meta = token_file.read(f"o/{k:03d}.npz")
    np.testing.assert_array_equal(ids, expected[k])
    assert meta.rate == 12 and meta.source == "clip.mp4"


def test_fit_resizes_and_crops_the_centre(gen, tmp_path):
  large = np.zeros((2, 64, 64, 3), np.uint8)
  large[:, 20:44] = 200  # in the middle after a crop from 24x24 to 16x24
  path = tmp_path / "large.mp4"
  video_write.write_video(path, large, 12)
  clip, _ = sample.read_input(str(path), gen.shape, 1, fit=True)
  assert clip.shape == (2, 16, 24, 3)
  assert clip[:, 5:11].min() > 150 and clip[:, 0].max() < 60
  np.testing.assert_allclose(
    clip.mean((0, 2, 3)), clip[:, ::-1].mean((0, 2, 3))
  )
  with pytest.raises(ValueError, match="64x64.*trained on 16x24.*--fit"):
    sample.read_input(str(path), gen.shape, 1, fit=False)
  with pytest.raises(ValueError, match="2 frames.*first 5"):
    sample.read_input(str(path), gen.shape, 5, fit=True)


@pytest.mark.parametrize(
  "flags,text",
  [
    (["--task=class_con"], "did you mean 'class_cond'.*frame_prediction"),
    (["--task=class_cond", "--label=cow"], "no label 'cow'"),
    (["--task=class_cond", "--input=clip.mp4"], "reads no clip.*--input"),
    (["--task=class_cond", "--num=0"], "--num is 0"),
    (["--task=class_cond", "--out=clip.mp4"], "clip.mp4 is a file"),
    (["--task=class_cond", "--out=full"], "000.npz exists.*--overwrite"),
    (["--task=class_cond", "--fps=0"], "--fps is 0"),
    (["--task=frame_prediction"], "--input=clip.mp4"),
    (["--task=frame_prediction", "--input=no.mp4"], "no.mp4"),
    (
      ["--task=frame_prediction", "--input=clip.mp4", "--label=cat"],
      "takes no --label",
    ),
    (
      ["--task=frame_prediction", "--input=clip.mp4", "--frames=2"],
      "frames=2.*predict from 1 or 5",
    ),
  ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
  run, tmp_path, capsys, flags, text
):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "000.npz").write_text("mine")
  before = sorted(path.name for path in tmp_path.rglob("*"))
  assert run("--out=o", *flags) == 2
  assert re.search(text, capsys.readouterr().err)
  assert sorted(path.name for path in tmp_path.rglob("*")) == before
  assert (tmp_path / "full" / "000.npz").read_text() == "mine"


def test_sheets_show_each_video_and_mark_what_was_given():
  videos = np.full((2, 3, 16, 24, 3), 100, np.uint8)
  videos[1] = 200
  rows = [sheets.Row("", videos[0], 1), sheets.Row("", videos[1])]
  sheet = np.asarray(sheets.contact_sheet(rows))
  area = 16 * 24 * 16
  assert (sheet == 100).all(-1).sum() == 3 * area
  assert (sheet == 200).all(-1).sum() == 3 * area
  marks = (sheet == sheets.pictures.MARK).all(-1)
  assert marks.sum() == 24 * 4 * sheets.GAP


def test_report_of_a_generator(gen, tmp_path, monkeypatch):
  monkeypatch.setattr(sampler, "load_generator", lambda *_, **__: gen)
  monkeypatch.setattr(made, "PREDICTED", 2)
  monkeypatch.setattr(made, "PER_CLASS", 1)
  out = tmp_path / "all.html"
  assert report.write(toy_generator.folder(), out) == out
  text = out.read_text()
  titles = re.findall("<h2>(.*?)</h2>", text)
  assert titles[:3] == ["Results", "Predicted futures", "Samples by class"]
  assert ">-0.750 <small>nats" not in text and ">+0.750 <small>nats" in text
  assert ">+1.50 <small>dB</small></b><span>above repeating tokens" in text
  assert text.count("data:image/webp") == 2 + 3  # futures, classes
  assert "No sections of its tokenizer" in text
  assert not (toy_generator.folder() / "report.html").exists()
  with pytest.raises(FileNotFoundError, match="no folder"):
    report.write(toy_generator.folder(), tmp_path / "no" / "all.html")


def test_a_future_is_the_given_frames_and_then_the_prediction(gen):
  video = toy_generator.clip()
  future = made._future(gen, "x", video, 5, seed=1)
  np.testing.assert_array_equal(future.made[:5], video[:5])
  guess = transforms.to_uint8(gen.predict(video, frames=5, seed=1)[0])
  np.testing.assert_array_equal(future.made[5:], guess[5:])
  hidden = video[5:].astype(float) - video[4].astype(float)
  expected = np.mean(
    [10 * np.log10(255**2 / np.mean(frame**2)) for frame in hidden]
  )
  assert future.repeat == pytest.approx(expected, abs=1e-3)


def test_ids_of_nested_sections_do_not_clash():
  body = '<path id="a"/><g clip-path="url(#a)"/><use xlink:href="#a"/>'
  moved = page.apart(page.Section("s", body), "t").body
  assert moved == (
    '<path id="t-a"/><g clip-path="url(#t-a)"/><use xlink:href="#t-a"/>'
  )
  assert "generator" in registry.names("stages")
