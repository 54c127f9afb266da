"""The report: complete, self-contained, and there when parts are missing."""

import html.parser
import io
import re
import types

import ml_collections
import numpy as np
import pytest
from PIL import Image

from helpers import toy_workdir
from helpers.errors import check_names, error_names
from magvit_jax import report
from magvit_jax.cli import report as verb
from magvit_jax.report import beside, curves, facts, page, pictures
from magvit_jax.training import loop

VOID = ("meta", "img", "br", "path", "rect")


@pytest.fixture
def run(tmp_path, monkeypatch):
  toy_workdir.patch(monkeypatch)
  return toy_workdir.write(tmp_path / "my <run>")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  """The report of a whole run."""
  with pytest.MonkeyPatch.context() as patch:
    toy_workdir.patch(patch)
    folder = toy_workdir.write(tmp_path_factory.mktemp("runs") / "my <run>")
    (folder / "DONE").write_text("step 400\n")
    return report.write(folder).read_text()


class Checker(html.parser.HTMLParser):
  """Collects addresses and headings; asserts that tags close in order."""

  def __init__(self, text):
    super().__init__()
    self.stack, self.links, self.titles = [], [], []
    self.feed(text)
    assert not self.stack

  def handle_starttag(self, tag, attrs):
    self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
    if tag not in VOID:
      self.stack.append(tag)

  def handle_endtag(self, tag):
    if tag not in VOID:
      assert self.stack.pop() == tag

  def handle_data(self, data):
    if self.stack and self.stack[-1] == "h2":
      self.titles.append(data)


def test_whole_report(text):
  found = Checker(text)
  assert found.titles == [
    "Results",
    "Training",
    "Reconstructions",
    "In motion",
    "Tokens",
    "Split",
    "Where the time went",
    "Configuration",
  ]
  assert ">done<" in text
  assert "23.00 <small>dB" in text and "+3.50 <small>dB" in text  # the margin
  check_names(text, "6.0 minutes")  # both starts of the run
  check_names(text, "83.3 %", "0.9 s", "9 examples/s")
  assert text.count("data:image/webp") == 5  # a film for each class


def test_nothing_is_fetched(text):
  assert all(link.startswith(("data:", "#")) for link in Checker(text).links)
  assert "<script" not in text and "@import" not in text
  assert not re.search(r"url\((?!#)", text)


def test_names_are_escaped(text):
  assert "my &lt;run&gt;" in text and "<run>" not in text
  assert "lfq&lt;b&gt;" in text and "lfq<b>" not in text


def test_svg_ids_are_unique(text):
  clips = re.findall(r'<clipPath id="([^"]+)"', text)
  assert clips and len(clips) == len(set(clips))


def test_another_run_stands_beside(run, tmp_path):
  other = toy_workdir.write(tmp_path / "other")
  text = report.write(run, tmp_path / "both.html", beside=other).read_text()
  checked = Checker(text)
  assert any("other" in title for title in checked.titles)
  labels = re.findall(r"<span>(original|my &lt;run&gt;|other)</span>", text)
  assert labels[:3] == ["original", "my &lt;run&gt;", "other"]
  assert labels.count("other") == len(report.gather.gather(run).held.clips)


def test_runs_of_different_clips_do_not_stand_beside(run, tmp_path):
  held = report.gather.gather(run)
  clips = tuple(c._replace(name="x") for c in held.held.clips)
  other = held._replace(held=held.held._replace(clips=clips))
  with error_names(ValueError, "(9, 16, 16, 3)", "x, x, x, x, x"):
    beside.check(held, other)
  with error_names(ValueError, "my <run>"):
    beside.check(held, other._replace(held=None))


def test_a_run_that_has_only_begun(tmp_path, monkeypatch):
  toy_workdir.patch(monkeypatch)
  folder = toy_workdir.write(tmp_path / "run", checkpoints=())
  (folder / "metrics.jsonl").unlink()
  text = report.write(folder).read_text()
  assert Checker(text).titles == ["Results", "Configuration"]
  assert "dB" not in text and "<img" not in text  # neither results nor clips


def test_half_a_line_of_metrics(run):
  with (run / "metrics.jsonl").open("a") as file:
    file.write('{"step": 40')
  check_names(report.write(run).read_text(), 1, "metrics.jsonl")


def test_utilization_is_told_where_it_is_known():
  rows = [
    {"seconds_step": 0.5, "examples_per_second": 16.0, "mfu": share}
    for share in (0.1, 0.4, 0.42)
  ]
  run = types.SimpleNamespace(of=lambda kind: rows)
  check_names(facts._speed(run), "16 examples/s", "40.0 %", "MFU")
  assert facts._speed(types.SimpleNamespace(of=lambda kind: [])) == ""


def test_report_of_what_the_loop_writes(tmp_path, monkeypatch):
  toy_workdir.patch(monkeypatch)
  cfg = ml_collections.ConfigDict(toy_workdir.CONFIG)
  cfg.steps = 3
  results = loop.run(cfg, tmp_path / "run")
  text = report.write(tmp_path / "run").read_text()
  assert len(Checker(text).titles) == 8
  assert f"{results['eval_psnr']:.2f} dB" in text
  assert "step <b>3 of 3</b>" in text and ">done<" in text
  for part in ("compile", "data", "step", "eval", "checkpoint"):
    assert f"</span>{part}</td>" in text


def test_not_a_workdir(tmp_path):
  with error_names(FileNotFoundError, "config.json"):
    report.write(tmp_path)
  assert not list(tmp_path.iterdir())


def test_verb_prints_the_path(run, capsys):
  assert verb.main([f"--workdir={run}"]) == 0
  assert f"{run / 'report.html'}" in capsys.readouterr().out
  assert [p.name for p in run.glob("*.html")] == ["report.html"]


def test_error_map_is_amplified():
  video = np.full((1, 2, 2, 3), 100, np.uint8)
  recon = video.copy()
  recon[0, 0, 0] = 110
  recon[0, 1, 1] = 200
  errors = pictures.error_map(video, recon)[0, ..., 0]
  assert errors.tolist() == [[40, 0], [0, 255]]


def test_strip_holds_the_frames_themselves():
  video = np.random.default_rng(0).integers(0, 256, (17, 8, 6, 3), np.uint8)
  sheet = np.asarray(Image.open(io.BytesIO(pictures.row(video))))
  assert sheet.shape == (8, 9 * (6 + pictures.GAP) - pictures.GAP, 4)
  np.testing.assert_array_equal(sheet[:, :6, :3], video[0])
  np.testing.assert_array_equal(sheet[:, -6:, :3], video[-1])


def test_film_is_lossless_and_loops():
  video = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
  film = Image.open(io.BytesIO(pictures.animation(video, 255 - video)))
  assert film.n_frames == 3 and film.info["loop"] == 0
  film.seek(2)
  frame = np.asarray(film.convert("RGB"))
  np.testing.assert_array_equal(frame[:, :6], video[2])
  np.testing.assert_array_equal(frame[:, -6:], 255 - video[2])


def test_large_frames_are_shrunk():
  video = np.zeros((1, 300, 600, 3), np.uint8)
  size = Image.open(io.BytesIO(pictures.row(video))).size
  assert size == (pictures.MAX_TILE, pictures.MAX_TILE // 2)


def test_smooth_keeps_constants_and_length():
  values = np.full(200, 3.0)
  np.testing.assert_allclose(curves.smooth(values), values)
  noisy = np.random.default_rng(0).normal(0, 1, 1000)
  assert curves.smooth(noisy).std() < 0.4


def test_curves_skip_what_is_not_finite():
  rows = [{"step": 1, "x": 2.0}, {"step": 2, "x": None}, {"step": 3}]
  curve = curves.series(rows, "x")
  assert curve.steps == (1,) and curve.values == (2.0,)
  assert curves.plot("t", "", [curves.series([], "x")]) == ""


def test_table_escapes_and_aligns():
  text = page.table(["a", "b"], [["<i>", page.number(1234.5)], ["x", 2]])
  assert "&lt;i&gt;" in text and "<td class=n>1,234.50</td>" in text


def test_a_folder_that_moved_away(run, monkeypatch):
  def gone(*_, **__):
    raise FileNotFoundError("/my/videos does not exist")

  monkeypatch.setattr(report.gather.trained_run, "open_run", gone)
  text = report.write(run).read_text()
  check_names(text, "/my/videos")
  assert Checker(text).titles[:2] == ["Results", "Training"]


def test_evaluations_have_a_column(run):
  evaluations = ['{"step": 7, "metrics": {"psnr": 12.5, "ssim": null}}']
  (run / "evaluation-2.json").write_text(evaluations[0])
  text = report.write(run).read_text()
  check_names(text, "evaluation-2.json", "12.50 dB")


def test_uneven_split_is_totalled(run):
  found = report.gather.gather(run)
  split = {f"f{k}": {"train": 2, "eval": 1} for k in range(50)}
  body = report.sections.facts.split(found._replace(split=split)).body
  check_names(body, "10 more files")
  assert ">in all<" in body and ">100<" in body and ">50<" in body
