"""What the page of `serve` calls: uploads, looks, edits, films; no server."""

import base64
import re

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from helpers import untrained_generator, video_files
from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax import tokenizers
from magvit_jax.checkpoints import checkpointer, checksum
from magvit_jax.data import transforms, video_io
from magvit_jax.files import workdirs
from magvit_jax.inference import edit_tasks
from magvit_jax.metrics import psnr
from magvit_jax.serve import edits, films, looks, markup, models, uploads
from magvit_jax.stages import TrainState

LIMITS = uploads.Limits(megabytes=1, seconds=1)


@pytest.fixture(scope="module")
def ready():
  return models.load(untrained_generator.folder())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  """A video of 40 frames at 25 per second, larger than the generator's."""
  path = tmp_path_factory.mktemp("uploads") / "mine.mp4"
  return video_files.write(path, video_files.pictures(40, 30, 40))


@pytest.fixture(scope="module")
def clip(ready, path):
  return uploads.read(path, LIMITS, ready.shape)


def test_only_the_first_seconds_are_read(clip, path):
  assert (clip.name, clip.frames, clip.fps) == ("mine.mp4", 40, 25)
  whole = video_io.read_all(path)
  np.testing.assert_array_equal(clip.video, whole[:25])
  text = markup.taken(clip)
  check_names(text, "25 of 40", "40x30", "1.0 s")
  assert clip.fitted.shape == (25, 16, 24, 3)
  np.testing.assert_allclose(
    video_files.level(clip.fitted),
    video_files.level(clip.video),
    atol=12,
  )


def test_large_pictures_shorten_what_is_read(path, monkeypatch):
  monkeypatch.setattr(uploads, "MAX_PIXELS", 30 * 40 * 7 + 5)
  assert len(uploads.read(path, LIMITS).video) == 7
  monkeypatch.setattr(uploads, "MAX_PIXELS", 30 * 40 - 1)
  with error_names(ValueError, "mine.mp4", "40x30", 1199):
    uploads.read(path, LIMITS)


def test_an_image_is_a_video_of_one_frame(ready, tmp_path):
  picture = video_files.pictures(1)[0]
  PIL.Image.fromarray(picture).save(tmp_path / "one.png")
  clip = uploads.read(str(tmp_path / "one.png"), LIMITS, ready.shape)
  np.testing.assert_array_equal(clip.video, picture[None])
  assert clip.fitted.shape == (1, 16, 24, 3)
  html = markup.look(looks.look(ready.tokenizer, clip), clip)
  assert "64x48" in html and "<video" not in html


def test_what_is_no_video_is_refused_by_its_own_name(path, tmp_path):
  with open(path, "rb") as stream:
    whole = stream.read()
  playlist = f"#EXTM3U\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n".encode()
  for name, content, named in [
    ("notes.mp4", b"no video at all", ["notes.mp4"]),
    ("empty.mp4", b"", ["empty.mp4"]),
    ("mine.exe", whole, ["mine.exe", ".mp4"]),
    ("list.mp4", playlist, ["list.mp4"]),
    ("cut.mp4", whole[: len(whole) // 2], ["cut.mp4"]),
    ("shell.webm", b"\x1a\x45\xdf\xa3" + bytes(90), ["shell.webm"]),
    (
      "head.png",
      b"\x89PNG\r\n\x1a\n" + bytes(90),
      ["head.png"],
    ),
    ("big.mp4", whole + bytes(1_000_000), ["big.mp4", "1.0 MB", "--max_mb"]),
  ]:
    (tmp_path / name).write_bytes(content)
    with error_names(ValueError, name, *named) as caught:
      uploads.read(str(tmp_path / name), LIMITS)
    assert str(tmp_path) not in str(caught.value)


def test_a_look_is_what_the_tokenizer_makes(ready, clip):
  tok = ready.tokenizer
  made = looks.look(tok, clip)
  ids = tok.encode(clip.video)
  np.testing.assert_array_equal(made.ids, ids)
  back = tok.decode(ids, frames=25, size=(30, 40))
  np.testing.assert_array_equal(made.recon, transforms.to_uint8(back))
  # 7 x 4 x 5 tokens of two ids out of 4 bits' worth in 25 frames of 30x40.
  places = np.prod(ids.shape[:3])
  bits = places * np.log2(np.array(tok.sizes)).sum() / clip.video[..., 0].size
  assert made.bits == pytest.approx(bits)
  assert made.used == len({tuple(p) for p in ids.reshape(-1, 2).tolist()})
  metric = psnr.Metric(files=1)
  sums = metric.update(
    valid=jnp.ones(1, bool),
    video=jnp.asarray(transforms.to_float(clip.video))[None],
    recon=jnp.asarray(back)[None],
    file=jnp.zeros(1, jnp.int32),
  )
  assert made.psnr == pytest.approx(metric.result(sums)["psnr"], abs=1e-4)
  html = markup.look(made, clip)
  assert f"<b>{made.psnr:.1f} dB</b>" in html and f"{bits:.4f}" in html
  assert html.count("<video") == 2 and "http" not in html


def test_a_tokenizer_alone_is_loaded(tmp_path):
  stage = {"name": "tokenizer", **untrained_generator.TOKENIZER}
  workdirs.write_config(
    tmp_path, {"stage": stage, "data": untrained_generator.DATA}
  )
  abstract = tokenizers.abstract(tokenizers.build_tokenizer(stage))
  weights = untrained_generator.drawn(abstract, 5)
  saver = checkpointer.Checkpointer(tmp_path, every=1)
  saver.save(1, TrainState(1, {}, {}, weights, {}, {"bad": jnp.zeros(())}))
  saver.close()
  ready = models.load(tmp_path)
  assert ready.generator is None and ready.shape == (9, 16, 24, 3)
  assert ready.tokenizer.fingerprint == checksum.fingerprint(weights)
  assert models.clip_shape(ready.tokenizer, {}) == (5, 64, 64, 3)


def test_films_play_what_they_show(tmp_path):
  video = untrained_generator.clip(5)
  film = films.film(video, 12)
  (tmp_path / "film.mp4").write_bytes(film.content)
  info = video_io.probe(tmp_path / "film.mp4")
  assert (info.frames, info.fps) == (5, 12)
  assert info.width == 11 * 24 and info.height == 11 * 16  # whole, even
  back = video_io.read_all(tmp_path / "film.mp4")[:, 5::11, 5::11]
  assert np.abs(back.astype(int) - video).mean() < 8
  assert films.shown(np.zeros((301, 257, 3), np.uint8)).shape == (302, 258, 3)


def test_equal_tokens_have_equal_colours():
  ids = np.stack(np.meshgrid(np.arange(64), np.arange(8)), axis=-1)
  colours = films.colours(ids).reshape(-1, 3)
  assert len(np.unique(colours, axis=0)) == 64 * 8
  np.testing.assert_array_equal(
    films.colours(ids[:, ::-1])[:, 0], colours[63::64]
  )


def wish(task, **rest):
  return edits.Wish(task, method=dict(steps=2), **rest)


def made(ready, clip, *args, **kwargs):
  return dict(edits.edit(ready.generator, clip, wish(*args, **kwargs)).videos)


def as_api(video):
  return transforms.to_uint8(video)


def test_edits_are_those_of_the_api(ready, clip):
  """Each verb shows what the generator's method of that name makes."""
  gen = ready.generator
  part = clip.fitted[5:14]
  rest = dict(num=2, seed=3, steps=2)
  box = (4, 6, 12, 18)  # of 16x24
  parts = tuple(np.array(box) / (16, 24, 16, 24))
  inner = np.ascontiguousarray(part[:, 4:12, 6:18])
  for task, expected, own in [
    ("predict", gen.predict(part, label="dog", **rest), dict(label="dog")),
    ("interpolate", gen.interpolate(part, **rest), {}),
    ("inpaint", gen.inpaint(part, box=box, **rest), dict(box=parts)),
    ("outpaint", gen.outpaint(inner, **rest), dict(box=parts)),
  ]:
    shown = made(ready, clip, task, start=0.2, num=2, seed=3, **own)
    for k in range(2):
      np.testing.assert_array_equal(
        shown[f"made, sample {k + 1}"], as_api(expected[k]), task
      )
    np.testing.assert_array_equal(shown["original"], part)
  seen = (shown["given"] == part).all(-1)
  assert seen[:, 4:12, 6:18].all() and not seen[:, :4].any()


def test_classes_and_tasks_by_name(ready):
  gen = ready.generator
  shown = made(ready, None, "class_cond", label="dog", num=2)
  expected = gen.sample("dog", num=2, steps=2)
  np.testing.assert_array_equal(shown["made, sample 2"], as_api(expected[1]))
  assert "original" not in shown
  choices = edits.choices(gen)
  assert list(choices) == [*edit_tasks.VERBS, *gen.tasks]
  read = [name for name in choices if edit_tasks.takes_label(gen.model, name)]
  assert read == ["predict", "class_cond", "told"]
  assert not edits.reads_clip(gen, "class_cond")
  assert edits.reads_clip(gen, "told") and edits.reads_clip(gen, "inpaint")


@pytest.mark.parametrize(
  "args,named",
  [
    (dict(task="inpaint"), ["box"]),
    (dict(task="inpaint", box=(0.5, 0.5, 0.5, 0.5)), ["box"]),
    (dict(task="outpaint", box=(0, 0, 1, 1)), ["box"]),
    (dict(task="inpaint", start=0.8), ["mine.mp4", "inpaint", 0.8, 5, 9]),
    (dict(task="predict", start=2), ["mine.mp4", "predict", 2, 0, 1]),
    (dict(task="predict", num=5), ["samples", 5, 4]),
    (dict(task="dream"), ["task", "dream"]),
    (dict(task="class_cond", label="cow"), ["cow", "0 (cat), 1 (dog), 2 (7)"]),
  ],
)
def test_wishes_that_cannot_be_met_are_explained(ready, clip, args, named):
  with error_names(ValueError, *named):
    edits.edit(ready.generator, clip, wish(**args))


def test_a_video_comes_first(ready):
  with error_names(ValueError, "video"):
    edits.edit(ready.generator, None, wish("predict"))


def test_results_hold_their_films_and_no_markup_of_others(ready, clip):
  evil = clip._replace(name="<script>x.mp4")
  made = edits.Edit([("<b>", clip.fitted[:3])], 25, "<i>", 0.25)
  html = markup.edit(made) + markup.taken(evil)
  assert "&lt;b&gt;" in html and "&lt;i&gt;" in html and "25% of" in html
  assert "<b>" not in html and "<i>" not in html
  assert "<script>" in markup.taken(evil)
  assert "<script>" not in markup.note(markup.taken(evil))
  film = re.search('src="data:video/mp4;base64,(.*?)"', html).group(1)
  assert base64.b64decode(film)[4:8] == b"ftyp"


@pytest.mark.parametrize(
  "flags,text",
  [
    (["--max_mb=0"], "--max_mb is 0.0; it must be above 0"),
    (["--max_seconds=-1"], "--max_seconds is -1.0"),
    (["--port=99999999"], "cannot listen.*give another --port"),
    (["--host=256.1.1.1"], "cannot listen at --host=256.1.1.1"),
  ],
)
def test_flags_are_checked_before_anything_is_loaded(capsys, flags, text):
  assert command.main(["serve", "--workdir=no/such", *flags]) == 2
  assert re.search(text, capsys.readouterr().err)
