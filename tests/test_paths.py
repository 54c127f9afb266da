"""gs:// paths, against a bucket that is a folder, and local ones beside it."""

import json
import os
import pickle
import signal

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from helpers import fake_gcs, toy_workdir, video_files
from helpers.errors import check_names, error_names
from magvit_jax import __main__
from magvit_jax.checkpoints import checkpointer, frozen_params
from magvit_jax.data import listing, video_folder, video_io, video_write
from magvit_jax.files import paths, remote_buffer, token_file, weight_file
from magvit_jax.monitoring import metric_writer, profiler

GS = "gs://bucket"
META = token_file.Meta(1, 2, 2, (0, 0, 0), "8", (1, 1, 1), (9,), "f", "a.mp4")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  return fake_gcs.use(monkeypatch, tmp_path)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path, bucket):
  """The name of a folder, local and remote; tests expect the same of both."""
  if request.param == "remote":
    return f"{GS}/out"
  (tmp_path / "out").mkdir()
  return str(tmp_path / "out")


def test_local_names_are_of_pathlib():
  for name in ("a/b", "/a", "~x", "a:b/c", "."):
    path = paths.as_path(name)
    assert type(path).__module__.startswith("pathlib")
    assert str(path) == name
    assert not paths.is_remote(name)


def test_remote_names_stay_what_they_are(bucket):
  path = paths.as_path(f"{GS}/a/b.mp4")
  assert str(path / "c") == f"{GS}/a/b.mp4/c"
  assert (path.name, path.suffix, paths.basename(path)) == (
    *("b.mp4", ".mp4"),
    "b.mp4",
  )
  assert str(paths.absolute(path.parent)) == f"{GS}/a"
  assert str(pickle.loads(pickle.dumps(path))) == str(path)
  assert paths.free_mib(path) == float("inf")


@pytest.mark.parametrize("name", ["gs:/bucket/a", "s3://b/a", "https://a/b"])
def test_other_schemes_are_refused(name):
  with error_names(ValueError, name, "gs://"):
    paths.as_path(name)


def test_without_gcsfs_one_line_names_the_extra(monkeypatch, capsys):
  def missing(name):
    raise ImportError(f"no {name}")

  monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
  assert __main__.main(["report", f"--workdir={GS}/run"]) == 2
  err = capsys.readouterr().err
  assert err.count("\n") == 1
  check_names(err, "[gcs]")


def test_files_are_written_whole_or_not_at_all(folder):
  path = paths.as_path(folder) / "a.txt"
  paths.write_text(path, "é1")
  with pytest.raises(KeyError), paths.writing(path) as part:
    part.write_text("half")
    raise KeyError
  assert paths.read_text(path) == "é1"
  assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
  with paths.reading(path) as local:
    assert local.read_bytes() == "é1".encode()


def test_folders_are_moved_and_removed(folder):
  top = paths.as_path(folder)
  for name in ("a/x", "a/b/y"):
    (top / name).parent.mkdir(parents=True, exist_ok=True)
    paths.write_text(top / name, name)
  paths.move_tree(top / "a", top / "damaged" / "a")
  assert not (top / "a").exists()
  assert paths.read_text(top / "damaged" / "a" / "b" / "y") == "a/b/y"
  paths.remove_tree(top / "damaged")
  paths.remove_tree(top / "damaged")
  assert not (top / "damaged").exists()


def test_tokens_weights_and_videos_come_back(folder):
  ids = np.arange(8).reshape(2, 2, 2, 1)
  token_file.check_target(f"{folder}/a.npz", overwrite=False)
  token_file.write(f"{folder}/a.npz", ids, META)
  back, meta = token_file.read(f"{folder}/a.npz")
  np.testing.assert_array_equal(back, ids)
  assert meta == META
  with pytest.raises(FileExistsError):
    token_file.check_target(f"{folder}/a.npz", overwrite=False)
  weights = {"net/w": np.ones((2, 3), np.float32)}
  weight_file.write(f"{folder}/w.safetensors", weights, {"from": "x"})
  arrays, notes = weight_file.read(f"{folder}/w.safetensors")
  np.testing.assert_array_equal(arrays["net/w"], weights["net/w"])
  assert notes == {"from": "x"}
  video = video_files.pictures(20)
  video_write.write_video(f"{folder}/v.mp4", video, 8)
  assert video_io.probe(f"{folder}/v.mp4").frames == 20
  with error_names(FileNotFoundError, f"{folder}/other.mp4"):
    video_io.probe(f"{folder}/other.mp4")


def test_a_folder_of_videos_is_the_same_in_a_bucket(bucket):
  root = bucket / "videos"
  for name in ("cats/a.mp4", "dogs/b.mp4", ".trash/c.mp4", "dogs/.d.mp4"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    video_files.write(root / name, video_files.pictures(40), gop=40)
  PIL.Image.new("RGB", (64, 48), "red").save(root / "cats" / "e.png")
  (root / "dogs" / "notes.txt").write_text("no video")
  for cache in (0, 64):
    here, there = (
      video_folder.Source(
        "train", name, frames=3, size=(16, 16), lines=16, cache_mib=cache
      )
      for name in (str(root), f"{GS}/videos")
    )
    assert there.files == here.files and len(there.files) == 2
    assert there.labels == here.labels == ("cats", "dogs")
    there = pickle.loads(pickle.dumps(there))
    for i in range(len(here)):
      one, other = (s.clip(i, np.random.default_rng(5)) for s in (here, there))
      np.testing.assert_array_equal(one.pop("video"), other.pop("video"))
      assert one == other


def test_an_empty_folder_of_data_is_named(bucket):
  with error_names(NotADirectoryError, "data.root", f"{GS}/none"):
    listing.list_files(f"{GS}/none")
  (bucket / "text").mkdir()
  (bucket / "text" / "a.txt").write_text("")
  with error_names(FileNotFoundError, "data.root", f"{GS}/text", ".mp4"):
    listing.list_files(f"{GS}/text")


def test_rows_reach_the_bucket_before_a_checkpoint(bucket, monkeypatch):
  path = bucket / "run" / "metrics.jsonl"

  def steps():
    if not path.exists():
      return []
    return [json.loads(x)["step"] for x in path.read_text().splitlines()]

  first = metric_writer.Writer(f"{GS}/run", steps=9, start=0)
  first.write(1, "train", {"loss": 1.0})
  assert steps() == []  # one upload a minute
  first.flush()
  assert steps() == [1]
  first.write(2, "train", {"loss": 1.0})
  first.write(2, "eval", {"psnr": 1.0})
  assert steps() == [1, 2, 2]
  first.write(3, "train", {"loss": 1.0})
  monkeypatch.setattr(metric_writer, "UPLOAD_SECONDS", 0.0)
  first.write(4, "train", {"loss": 1.0})
  assert steps() == [1, 2, 2, 3, 4]
  # Killed here, it goes on from the checkpoint of step 2.
  second = metric_writer.Writer(f"{GS}/run", steps=9, start=2)
  assert len(second.rows("train")) == 2
  second.write(3, "train", {"loss": 2.0})
  second.close()
  assert steps() == [1, 2, 2, 3]
  assert len(list((bucket / "run" / "tb").iterdir())) == 2
  assert not second.spool.local.exists()
  first.close()


def test_what_a_bucket_does_not_take_stays_here(bucket, monkeypatch):
  own = remote_buffer.Spool(f"{GS}/run")
  (own.local / "a" / "b").mkdir(parents=True)
  (own.local / "a" / "b" / "c").write_text("1")

  def refuse(*args, **kwargs):
    raise fsspec.exceptions.FSTimeoutError("too slow")

  with monkeypatch.context() as patch:
    patch.setattr(fake_gcs.Store, "_open", refuse)
    with error_names(remote_buffer.UploadError, f"{GS}/run", own.local):
      own.close()
  assert own.local.exists()
  own.close()
  assert (bucket / "run" / "a" / "b" / "c").read_text() == "1"
  assert not own.local.exists()


def test_a_trace_is_brought_to_the_bucket(bucket, monkeypatch):
  def start(folder, **options):
    (bucket / "here").write_text(folder)

  def stop():
    local = (bucket / "here").read_text()
    with open(f"{local}/a.xplane.pb", "w") as file:
      file.write("trace")

  monkeypatch.setattr(jax.profiler, "start_trace", start)
  monkeypatch.setattr(jax.profiler, "stop_trace", stop)
  trace = profiler.Trace(
    profiler.Steps(0, 1), paths.as_path(f"{GS}/run/profile"), print
  )
  with trace.step(0, lambda: ()):
    pass
  assert (bucket / "run" / "profile" / "a.xplane.pb").read_text() == "trace"


@pytest.fixture
def config(tmp_path):
  """A config file of the toy stage, six steps on moving digits."""
  cfg = {**toy_workdir.CONFIG, "steps": 6}
  cfg["checkpoint"] = {**cfg["checkpoint"], "every": 2}
  cfg["eval"] = {**cfg["eval"], "every": 2, "metrics": {"psnr": {}}}
  path = tmp_path / "toy.py"
  path.write_text(
    "import ml_collections\n\n\ndef get_config():\n"
    f"  return ml_collections.ConfigDict({cfg!r})\n"
  )
  return path


def test_a_run_in_a_bucket_stops_goes_on_and_is_looked_at(
  bucket, config, monkeypatch, capsys
):
  toy_workdir.patch(monkeypatch)
  run, train = bucket / "run", ["train", f"--config={config}"]
  write = metric_writer.Writer.write

  def stop_at_3(self, step, kind, values):
    write(self, step, kind, values)
    if (step, kind) == (3, "train"):
      os.kill(os.getpid(), signal.SIGTERM)

  save, behind = checkpointer.Checkpointer.save, []

  def rows_first(self, step, *args, **kwargs):
    if _rows(run, "train")[-1]["step"] < step:
      behind.append(step)
    return save(self, step, *args, **kwargs)

  there = [*train, f"--workdir={GS}/run"]
  with monkeypatch.context() as patch:
    patch.setattr(metric_writer.Writer, "write", stop_at_3)
    patch.setattr(checkpointer.Checkpointer, "save", rows_first)
    assert __main__.main(there) == 128 + signal.SIGTERM
  assert not (run / "DONE").exists() and not behind
  assert __main__.main(there) == 0
  check_names(capsys.readouterr().out, "step 4")
  assert __main__.main(there) == 0
  check_names(capsys.readouterr().out, f"{GS}/run")
  here = bucket.parent / "local"
  assert __main__.main([*train, f"--workdir={here}"]) == 0
  for name in ("DONE", "config.json"):
    assert (run / name).read_text() == (here / name).read_text()
  for kind, wanted in (("train", [*range(1, 7)]), ("eval", [2, 4, 6])):
    one, other = (_rows(folder, kind) for folder in (here, run))
    assert [row["step"] for row in other] == wanted
    for key in ("loss", "eval_psnr"):
      assert [r.get(key) for r in one] == [r.get(key) for r in other]
  assert checkpointer.steps(f"{GS}/run") == [6]
  assert __main__.main(["evaluate", f"--workdir={GS}/run"]) == 0
  assert json.loads((run / "evaluation.json").read_text())["step"] == 6
  assert __main__.main(["report", f"--workdir={GS}/run"]) == 0
  assert "</html>" in (run / "report.html").read_text()
  # Nothing was taken for a local name on the way.
  assert not os.path.exists("gs:")


def test_a_damaged_checkpoint_in_a_bucket_is_passed_over(bucket, capsys):
  toy_workdir.save(f"{GS}/run", 1, shift=1.0)
  toy_workdir.save(f"{GS}/run", 2, shift=2.0)
  files = (bucket / "run" / "checkpoints" / "2" / "ema").rglob("d/*")
  for path in files:
    path.write_bytes(path.read_bytes()[:-1] + b"?")
  state = jax.eval_shape(toy_workdir.init, None, None, {})
  saver = checkpointer.Checkpointer(f"{GS}/run", every=1)
  step, found = saver.restore(jax.tree.map(_here, state))
  saver.close()
  assert (step, float(found.ema["shift"])) == (1, 1.0)
  assert checkpointer.steps(f"{GS}/run") == [1]
  damaged = bucket / "run" / "damaged" / "2"
  assert (damaged / "manifest.json").exists()


def test_frozen_arrays_lie_in_a_bucket(bucket):
  frozen = {"net": {"w": jnp.arange(3.0)}}
  frozen_params.save(f"{GS}/run", frozen)
  back = frozen_params.restore_arrays(f"{GS}/run", jax.tree.map(_here, frozen))
  np.testing.assert_array_equal(back["net"]["w"], frozen["net"]["w"])
  assert (bucket / "run" / "frozen" / "sha256").is_file()


def _here(x):
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


def _rows(run, kind):
  lines = (run / "metrics.jsonl").read_text().splitlines()
  return [row for row in map(json.loads, lines) if row["kind"] == kind]
