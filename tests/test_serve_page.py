"""The page of `serve` over HTTP, in this process, with a toy generator."""

import gc
import pathlib
import re
import urllib.request

import gradio_client
import numpy as np
import pytest

from helpers import untrained_generator, video_files
from helpers.errors import check_names, error_names
from magvit_jax.data import transforms, video_io
from magvit_jax.inference import edit_tasks
from magvit_jax.serve import edits, markup, models, page, uploads

LIMITS = uploads.Limits(megabytes=0.5, seconds=1)
# What gradio leaves open and what it does with pandas.
pytestmark = [
  pytest.mark.filterwarnings("ignore::ResourceWarning"),
  pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'"),
]
BOX = [0.25, 0.25, 0.75, 0.75]


@pytest.fixture(scope="module")
def ready():
  return models.load(untrained_generator.folder())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(ready, folder):
  blocks = page.build(ready, LIMITS, str(folder))
  yield page.launch(blocks, LIMITS, host="127.0.0.1", port=None)
  blocks.close(verbose=False)
  gc.collect()  # here, where what was left open may be


@pytest.fixture
def client(address):
  client = gradio_client.Client(address, verbose=False)
  yield client
  client.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("own") / "mine.mp4"
  return video_files.write(path, video_files.pictures(12, 16, 24))


def files(folder):
  return [path for path in folder.rglob("*") if path.is_file()]


def look(client, path):
  """(what is left in the drop zone, the result, the picture for the box)."""
  upload = gradio_client.handle_file(str(path))
  return client.predict(upload, api_name="/look")


def edit(client, task, **changes):
  settings = dict(
    label=page.NO_CLASS, box=None, start=0, num=1, seed=0, steps=2, heat=1.0
  )
  values = {**settings, **changes}.values()
  return client.predict(task, *values, 0.0, api_name="/edit")


def test_a_visit_leaves_no_file(ready, client, path, folder, monkeypatch):
  """The page shows what the functions give, from upload to edit."""
  shown = []
  monkeypatch.setattr(
    markup, "edit", lambda made: shown.append(made) or "made it"
  )
  zone, html, _ = look(client, path)
  assert zone is None and html.count("<video") == 2
  check_names(html, "mine.mp4", 12, "24x16")
  assert files(folder) == []
  assert edit(client, "inpaint", box=BOX) == "made it"
  clip = video_io.read_all(path)[:9]
  made = ready.generator.inpaint(clip, box=(4, 6, 12, 18), steps=2)
  np.testing.assert_array_equal(
    dict(shown[0].videos)["made, sample 1"], transforms.to_uint8(made[0])
  )
  assert edit(client, "class_cond", label="dog", seed=4) == "made it"
  made = ready.generator.sample("dog", seed=4, steps=2)
  np.testing.assert_array_equal(
    dict(shown[1].videos)["made, sample 1"], transforms.to_uint8(made[0])
  )
  assert files(folder) == []


def test_what_goes_wrong_is_a_message_on_the_page(
  client, path, tmp_path, folder
):
  assert 'role="alert"' in edit(client, "predict")
  bad = tmp_path / "cut.mp4"
  bad.write_bytes(pathlib.Path(path).read_bytes()[:800])
  _, html, _ = look(client, bad)
  assert 'role="alert"' in html and "cut.mp4" in html
  assert "Traceback" not in html and str(folder) not in html
  assert files(folder) == []
  nothing_uploaded = edit(client, "predict")
  assert 'role="alert"' in nothing_uploaded
  look(client, path)
  for html in (
    edit(client, "outpaint"),
    edit(client, "inpaint", start=0.4),
  ):
    assert 'role="alert"' in html and html != nothing_uploaded


def test_each_visitor_has_a_clip_of_their_own(address, client, path):
  look(client, path)
  other = gradio_client.Client(address, verbose=False)
  assert 'role="alert"' in edit(other, "predict")


def test_larger_files_are_not_taken(client, tmp_path, folder):
  large = tmp_path / "large.mp4"
  large.write_bytes(bytes(600_000))
  with error_names(ValueError, "large.mp4", 500000):
    look(client, large)
  assert files(folder) == []


def test_the_page_asks_no_other_machine(address):
  with urllib.request.urlopen(address) as reply:
    text = reply.read().decode()
  # What a browser loads: scripts, styles, fonts, pictures.
  loaded = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', text)
  assert loaded and not [a or b for a, b in loaded if "//" in (a or b)]
  assert "googleapis" not in text and '"analytics_enabled":false' in text
  assert '"share":false' in text or '"share_url"' not in text


def test_one_job_runs_at_a_time(ready, folder):
  blocks = page.build(ready, LIMITS, str(folder))
  queued = [fn for fn in blocks.fns.values() if fn.queue]
  assert {fn.concurrency_id for fn in queued} == {"models"}
  assert {fn.concurrency_limit for fn in queued} == {1}
  assert {fn.api_name for fn in queued} == {"look", "edit"}
  assert set(edit_tasks.VERBS) <= set(edits.choices(ready.generator))
