"""The verb sample, and the report of a generator, on a toy's workdir."""

import pathlib
import re

import numpy as np
import PIL.Image
import pytest

from helpers import untrained_generator
from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax import registry, report
from magvit_jax.data import transforms, video_io, video_write
from magvit_jax.files import token_file
from magvit_jax.inference import prompts, sample_inputs, sampler
from magvit_jax.report import made, page, sheets, steps

BOX = (0, 0, 8, 8)
LUMA = np.array([0.299, 0.587, 0.114])  # colour is stored at half the size


@pytest.fixture(scope="module")
def gen():
  return sampler.load_generator(untrained_generator.folder())


@pytest.fixture
def run(gen, tmp_path, monkeypatch):
  """Runs the verb with the toy in a folder that holds clip.mp4."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sampler, "load_generator", lambda *_, **__: gen)
  video_write.write_video("clip.mp4", untrained_generator.clip(), 12, quality=0)
  PIL.Image.fromarray(np.zeros((4, 5), np.uint8)).save("clip.png")

  def verb(*args):
    return command.main(["sample", "--workdir=W", "--num=2", *args])

  return verb


def ids_of(gen, prompt, label=None, **rest):
  return gen.complete(prompt, gen.label_numbers(label, 2), **rest)


def test_samples_of_classes_in_turn(run, gen, capsys):
  assert run("--task=class_cond", "--out=a/b", "--seed=5") == 0
  check_names(capsys.readouterr().out, 2, "9x16x24")
  expected = ids_of(gen, prompts.from_label(gen.model), [0, 1], seed=5)
  for k in range(2):
    ids, meta = token_file.read(f"a/b/{k:03d}.npz")
    np.testing.assert_array_equal(ids, expected[k])
    assert meta.fingerprint == gen.tokenizer.fingerprint
    assert (meta.frames, meta.height, meta.width) == (9, 16, 24)
    info = video_io.probe(f"a/b/{k:03d}.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (9, 16, 24, 8)
  video = transforms.to_uint8(gen.decode(expected))
  written = video_io.read_all("a/b/001.mp4") @ LUMA
  errors = np.abs(video @ LUMA - written).mean((1, 2, 3))
  assert errors[1] < 0.7 * errors[0], errors
  with PIL.Image.open("a/b/sheet.png") as sheet:
    assert sheet.size[0] > 9 * 24


def test_flags_reach_the_decoding(run, gen):
  method = dict(steps=2, guidance=1.5, guidance_power=1.0, temperature=0.5)
  flags = [f"--{name}={value}" for name, value in method.items()]
  assert run("--task=class_cond", "--label=dog", "--out=o", *flags) == 0
  prompt = prompts.from_label(gen.model)
  expected = ids_of(gen, prompt, "dog", **method)
  np.testing.assert_array_equal(token_file.read("o/001.npz")[0], expected[1])


def test_intermediates_end_in_the_sample(run, gen):
  prompt, labels = prompts.from_label(gen.model), gen.label_numbers("dog", 2)
  trace = gen.trace(prompt, labels, seed=3)
  steps, masked = gen.method.steps, trace.unknown.sum((2, 3, 4))
  assert trace.ids.shape == (2, steps, *gen.grid, 2)
  assert (np.diff(masked) < 0).all() and not masked[:, -1].any()
  done = gen.complete(prompt, labels, seed=3)
  np.testing.assert_array_equal(trace.ids[:, -1], done)
  flags = ["--task=class_cond", "--label=dog", "--seed=3", "--intermediates"]
  assert run(*flags, "--out=o") == 0
  with PIL.Image.open("o/steps.png") as sheet:
    assert sheet.size[0] > 9 * 24


def test_what_is_made_anew_is_greyed_out():
  videos = np.full((2, 5, 4, 4, 3), 200, np.uint8)
  unknown = np.zeros((2, 2, 2, 2), bool)
  unknown[0, 1, 0, 1] = True  # frames 1 to 4, above, right
  first, last = steps.rows(videos, unknown)
  changed = (first.video != 200).all(-1)
  assert changed[1:, :2, 2:].all() and changed.sum() == 4 * 2 * 2
  assert (last.video == 200).all()
  assert first.name.endswith("88% decided")


def test_futures_of_a_clip(run, gen):
  clip = video_io.read_all("clip.mp4")
  prompt = prompts.predict(gen.model, clip, 5, labelled=False)
  expected = ids_of(gen, prompt)
  for k, flags in enumerate(
    (["--task=frame_prediction_5"], ["--task=predict", "--given=5"])
  ):
    assert run(*flags, "--input=clip.mp4", f"--out={k}") == 0
    for row in range(2):
      ids, meta = token_file.read(f"{k}/{row:03d}.npz")
      np.testing.assert_array_equal(ids, expected[row])
      assert meta.rate == 12 and meta.source == "clip.mp4"


def test_a_long_future_is_written_chunk_by_chunk(run, gen, capsys):
  flags = ["--task=predict", "--given=1", "--input=clip.mp4", "--frames=15"]
  assert run(*flags, "--out=o") == 0
  check_names(capsys.readouterr().out, 2, "15x16x24")
  clip = video_io.read_all("clip.mp4")
  video = transforms.to_uint8(gen.predict(clip, frames=15, num=2))
  files = sorted(path.name for path in pathlib.Path("o").glob("*"))
  chunks = [f"{k:03d}-{c:02d}.npz" for k in range(2) for c in range(3)]
  assert files == sorted(["000.mp4", "001.mp4", "sheet.png", *chunks])
  for k in range(2):
    written = video_io.read_all(f"o/{k:03d}.mp4")
    assert len(written) == 15
    errors = np.abs(written @ LUMA - video @ LUMA).mean((1, 2, 3))
    assert errors[k] < 0.7 * errors[1 - k], errors
  ids, _ = token_file.read("o/001-00.npz")
  np.testing.assert_array_equal(ids, ids_of(gen, _first(gen, clip))[1])
  assert run(*flags, "--out=o") == 2  # they stay as they are


def _first(gen, clip):
  return prompts.predict(gen.model, clip, 1, labelled=False)


def test_edits_are_those_of_the_api(run, gen):
  """Each verb writes what its prompt makes, as the method of the name does."""
  clip = video_io.read_all("clip.mp4")
  inner = np.ascontiguousarray(clip[:, 4:12, 6:18])
  video_write.write_video("inner.mp4", inner, 12, quality=0)
  mask = np.zeros((16, 24), np.uint8)
  mask[:8, 8:16] = 255
  PIL.Image.fromarray(mask).save("mask.png")
  inner = video_io.read_all("inner.mp4")
  model = gen.model
  for flags, prompt in [
    (["--task=interpolate"], prompts.interpolate(model, clip, 1)),
    (
      ["--task=inpaint", "--box=0,0,8,8"],
      prompts.inpaint(model, clip, box=BOX),
    ),
    (
      ["--task=inpaint", "--mask=mask.png"],
      prompts.inpaint(model, clip, mask=mask),
    ),
    (
      ["--task=inpaint_central"],
      prompts.by_task(model, "inpaint_central", clip),
    ),
    (["--task=outpaint", "--size=24x16"], prompts.outpaint(model, inner)),
  ]:
    name = "inner" if "--task=outpaint" in flags else "clip"
    out = flags[-1].strip("-")
    assert run(*flags, f"--input={name}.mp4", f"--out={out}") == 0
    np.testing.assert_array_equal(
      token_file.read(f"{out}/001.npz")[0], ids_of(gen, prompt)[1]
    )


def test_methods_of_the_api_make_what_prompts_say(gen):
  clip = untrained_generator.clip()
  prompt = prompts.inpaint(gen.model, clip, box=BOX)
  ids = ids_of(gen, prompt, seed=2)
  video = gen.inpaint(clip, box=BOX, num=2, seed=2)
  np.testing.assert_array_equal(video, gen.decode(ids))
  for video in (
    gen.interpolate(clip[[0, -1]], num=2),
    gen.outpaint(clip[:, :8, :12], num=2),
  ):
    assert video.shape == (2, *gen.shape) and np.abs(video).max() <= 1


def test_fit_resizes_and_crops_the_centre(gen, tmp_path):
  large = np.zeros((2, 64, 64, 3), np.uint8)
  large[:, 20:44] = 200  # in the middle after a crop from 24x24 to 16x24
  path = tmp_path / "large.mp4"
  video_write.write_video(path, large, 12)
  clip, info = sample_inputs.read_start(str(path), gen.shape, 1, fit=True)
  assert clip.shape == (2, 16, 24, 3)
  assert clip[:, 5:11].min() > 150 and clip[:, 0].max() < 60
  np.testing.assert_allclose(
    clip.mean((0, 2, 3)), clip[:, ::-1].mean((0, 2, 3))
  )
  with error_names(ValueError, "large.mp4", "64x64", "16x24", "--fit"):
    sample_inputs.read_start(str(path), gen.shape, 1, fit=False)
  with error_names(ValueError, "large.mp4", 2, 5):
    sample_inputs.read_start(str(path), gen.shape, 5, fit=True)
  # A mask is cut as its clip is.
  PIL.Image.fromarray(large[0]).save(tmp_path / "mask.png")
  mask = sample_inputs.read_mask(
    str(tmp_path / "mask.png"), info, gen.shape, True
  )
  assert mask.shape == (16, 24) and mask[5:11].min() > 150 > mask[0].max()


def test_a_canvas_is_scaled_to_the_trained_size(gen, tmp_path):
  path = str(tmp_path / "small.mp4")
  video_write.write_video(path, np.zeros((9, 24, 32, 3), np.uint8), 12)
  clip, _ = sample_inputs.read_inner(path, gen.shape, (48, 32))
  assert clip.shape == (9, 12, 16, 3)
  with error_names(ValueError, "--size=40x32", "24x16", "48x32"):
    sample_inputs.read_inner(path, gen.shape, (40, 32))
  with error_names(ValueError, "small.mp4", "32x24", "--size=30x20"):
    sample_inputs.read_inner(path, gen.shape, (30, 20))


@pytest.mark.parametrize(
  "flags,text",
  [
    (["--task=class_con"], "did you mean 'class_cond'.*frame_prediction"),
    (["--task=class_cond", "--label=cow"], "no label 'cow'"),
    (["--task=class_cond", "--input=clip.mp4"], "does not read --input"),
    (["--task=class_cond", "--num=0"], "--num is 0"),
    (["--task=class_cond", "--out=clip.mp4"], "clip.mp4 is a file"),
    (["--task=class_cond", "--out=full"], "000.npz exists.*--overwrite"),
    (["--task=class_cond", "--fps=0"], "--fps is 0"),
    (["--task=class_cond", "--frames=0"], "frames=0 leaves nothing"),
    (["--task=frame_prediction"], "--input=clip.mp4"),
    (["--task=frame_prediction", "--input=no.mp4"], "no.mp4"),
    (
      ["--task=frame_prediction", "--input=clip.mp4", "--label=cat"],
      "trained without labels",
    ),
    (
      ["--task=predict", "--input=clip.mp4", "--given=2"],
      "given=2.*predict frames from 1 or 5",
    ),
    (["--task=inpaint", "--input=clip.mp4"], "hides no pixel"),
    (["--task=inpaint", "--input=clip.mp4", "--size=9x9"], "not read --size"),
    (
      ["--task=inpaint", "--input=clip.mp4", "--mask=clip.png"],
      "clip.png is 5x4.*input is 24x16",
    ),
    (
      ["--task=inpaint", "--input=clip.mp4", "--box=0,0,17,4"],
      "within frames of 16x24",
    ),
    (
      ["--task=outpaint", "--input=clip.mp4", "--size=24x16"],
      "smaller in height, width or both",
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
  assert report.write(untrained_generator.folder(), out) == out
  text = out.read_text()
  titles = re.findall("<h2>(.*?)</h2>", text)
  assert titles[:3] == ["Results", "Predicted futures", "Samples by class"]
  assert ">-0.750 <small>nats" not in text and ">+0.750 <small>nats" in text
  assert ">+1.50 <small>dB</small>" in text
  assert text.count("data:image/webp") == 2 + 3  # futures, classes
  assert not (untrained_generator.folder() / "report.html").exists()
  with error_names(FileNotFoundError, tmp_path / "no"):
    report.write(untrained_generator.folder(), tmp_path / "no" / "all.html")


def test_a_future_is_the_given_frames_and_then_the_prediction(gen):
  video = untrained_generator.clip()
  future = made._future(gen, "x", video, 5, seed=1)
  np.testing.assert_array_equal(future.made[:5], video[:5])
  guess = transforms.to_uint8(gen.predict(video, given=5, seed=1)[0])
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
