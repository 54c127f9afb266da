"""Records of tokens: written by `encode --split`, read as a source."""

import contextlib

import jax
import numpy as np
import pytest

from helpers import tiny_generator as tiny
from helpers.errors import check_names, error_names
from magvit_jax import registry
from magvit_jax.cli import encode
from magvit_jax.data import moving_digits, pipeline, token_records
from magvit_jax.inference import video_codec
from magvit_jax.stages import _generator_model
from magvit_jax.tasks import free_mask
from magvit_jax.training import dependencies, loop

# All tasks, two of them with arguments.
TASKS = {
  name: dict(free_mask.TINY if name == "free_mask" else {}, weight=1.0)
  for name in registry.names("tasks")
}
TASKS["frame_prediction"] = dict(frames=3, weight=1.0)
PREFIXES = ("class_cond", "class_cond_frame_prediction", "frame_prediction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A tokenizer's workdir with records of both splits beside it."""
  root = tmp_path_factory.mktemp("records")
  tiny.write_tokenizer(root / "tokenizer")
  text = "import ml_collections\n\ndef get_config():\n"
  stage = {"stage": {"tasks": TASKS}}
  (root / "ten.py").write_text(
    f"{text}  return ml_collections.ConfigDict({stage!r})\n"
  )
  for split, clips in (("train", 5), ("eval", 4)):
    flags = [f"--split={split}", f"--clips={clips}", str(root / f"{split}.npz")]
    flags.append(f"--tasks={root / 'ten.py'}")
    assert encode.main([f"--workdir={root / 'tokenizer'}", *flags]) == 0
  return root


def source(folder, split="train"):
  paths = dict(train=str(folder / "train.npz"), eval=str(folder / "eval.npz"))
  return token_records.Source(split, **paths)


def config(folder):
  data = dict(
    name="token_records",
    train=str(folder / "train.npz"),
    eval=str(folder / "eval.npz"),
  )
  cfg = tiny.config(folder / "tokenizer", data=data)
  del cfg.eval.metrics.prediction_psnr  # records hold no pixels
  return cfg


def test_records_are_the_ids_of_the_clips(folder):
  records = token_records.read(folder / "eval.npz")
  pixels = moving_digits.Source(
    "eval", frames=tiny.SHAPE[0], size=tiny.SHAPE[1:3], eval_clips=4
  )
  codec = video_codec.load_tokenizer(folder / "tokenizer")
  clips = [pixels.clip(i, np.random.default_rng(0)) for i in range(4)]
  ids = codec.encode(np.stack([clip["video"] for clip in clips]))
  # A latent beside its threshold may fall to the other side in another shape.
  assert np.mean(records.ids == ids) > 0.999
  assert records.label.tolist() == [clip["label"] for clip in clips]
  assert records.ids.dtype == np.uint8 and records.sizes == codec.sizes
  assert records.fingerprint == codec.fingerprint
  assert records.shape == tiny.SHAPE and len(records.labels) == 10


def test_they_hold_the_ids_of_condition_clips_that_tasks_need(folder):
  """A batch of records gives every task what the videos give it."""
  records = token_records.read(folder / "eval.npz")
  # A causal tokenizer finds given first frames in the ids of the clip.
  assert set(records.tasks) == set(TASKS) - set(PREFIXES)
  assert records.tasks["free_mask"] == {"mask": ("..", ".#")}
  assert records.conditions.shape == (4, 8, *records.ids.shape[1:])
  held = source(folder, "eval")
  pixels = moving_digits.Source(
    "eval", frames=tiny.SHAPE[0], size=tiny.SHAPE[1:3], eval_clips=4
  )
  with contextlib.closing(pipeline.eval_batches(held, batch=4)) as batches:
    stored = pipeline.arrays(next(batches))
  with contextlib.closing(pipeline.eval_batches(pixels, batch=4)) as batches:
    videos = pipeline.arrays(next(batches))
  net = _generator_model.make_net(
    tokenizer=tiny.TOKENIZER,
    shape=tiny.SHAPE,
    classes=tiny.CLASSES,
    generator=tiny.STAGE["generator"],
    tasks=TASKS,
    dtype="float32",
  )
  assert set(net.needs) == set(records.tasks)
  params = {"tokenizer": tiny.tokenizer_params()}
  run = jax.jit(
    lambda batch, task: _generator_model.tokens(net, params, batch, task)
  )
  for first in (0, 4, 8):
    task = (first + np.arange(4, dtype=np.int32)) % len(TASKS)
    (ids, a), (same, b) = run(videos, task), run(stored, task)
    assert np.mean(np.asarray(ids) == same) > 0.999
    for x, y in zip(a[1:], b[1:], strict=True):
      np.testing.assert_array_equal(x, y)
    known = np.asarray(a.known)
    alike = np.asarray(a.ids)[known] == np.asarray(b.ids)[known]
    assert known.any() and np.mean(alike) > 0.999
    assert (np.asarray(a.ids) != ids).any()


def test_tasks_that_records_cannot_serve_are_refused(folder, tmp_path):
  cases = [
    ("free_mask", dict(mask=("#.",))),
    ("corner", dict(name="free_mask", mask=("#.",))),
  ]
  for name, task in cases:
    cfg = config(folder)
    cfg.stage.tasks[name] = dict(weight=1.0, **task)
    with error_names(ValueError, name, "{'mask': ('#.',)"):
      loop.run(cfg, tmp_path / "run")
  assert not (tmp_path / "run").exists()
  # Served are those of the records, and what needs no condition clip.
  cfg = config(folder)
  cfg.stage.tasks.interpolation = dict(frames=1, weight=1.0)
  cfg.stage.tasks.frame_prediction.frames = 3
  resolved, _ = dependencies.resolve(cfg, folder / "new")
  dependencies.describe(resolved, source(folder))


def test_a_source_of_records_makes_batches(folder):
  train = source(folder)
  assert len(train) == 5
  loader = dict(threads=0, prefetch=1)
  with contextlib.closing(
    pipeline.train_batches(train, seed=0, batch=2, loader=loader)
  ) as batches:
    batch = next(batches)
  assert batch["ids"].dtype == np.int32
  assert batch["ids"].shape == (2, *train.ids_shape)
  assert "video" not in batch
  held = source(folder, "eval")
  with contextlib.closing(
    pipeline.eval_batches(held, batch=3, loader=loader)
  ) as batches:
    rows = list(batches)
  assert [row["valid"].tolist() for row in rows] == [[True] * 3, [True, 0, 0]]
  assert rows[1]["index"].tolist() == [3, 4, 5]
  np.testing.assert_array_equal(rows[1]["ids"][0], held.clip(3, None)["ids"])


def test_training_draws_its_windows_anew(folder):
  ids = token_records.read(folder / "train.npz").ids
  assert len({row.tobytes() for row in ids}) == 5


def test_a_generator_trains_on_records(folder):
  result = loop.run(config(folder), folder / "run")
  assert result["step"] == 2
  assert np.isfinite(result["eval_cross_entropy"])
  assert 0 <= result["eval_token_accuracy"] <= 1


def test_records_of_another_tokenizer_are_refused(folder, tmp_path):
  tiny.write_tokenizer(tmp_path / "tokenizer", seed=3)
  for name in ("train.npz", "eval.npz"):
    (tmp_path / name).write_bytes((folder / name).read_bytes())
  with error_names(
    ValueError, "tokenizer.workdir", tmp_path / "tokenizer", "fingerprint"
  ):
    loop.run(config(tmp_path), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_records_of_another_grid_are_refused(folder):
  resolved, _ = dependencies.resolve(config(folder), folder / "new")
  other = source(folder)
  other._records = other._records._replace(ids=other._records.ids[:, :1])
  with error_names(
    ValueError, "tokenizer.workdir", "(1, 8, 8, 2)", "(3, 8, 8, 2)"
  ):
    dependencies.describe(resolved, other)


def test_bad_files_are_named(folder, tmp_path):
  with error_names(
    FileNotFoundError, "data.train", tmp_path / "train.npz", "--split=train"
  ):
    source(tmp_path)
  (tmp_path / "train.npz").write_text("text")
  with error_names(ValueError, tmp_path / "train.npz"):
    source(tmp_path)
  np.savez(tmp_path / "eval.npz", ids=np.zeros(3))
  with error_names(ValueError, tmp_path / "eval.npz"):
    source(tmp_path, "eval")
  with error_names(ValueError, "split", "test", "'train' or 'eval'"):
    source(folder, "test")


def test_flags_of_the_verb(folder, capsys):
  workdir = f"--workdir={folder / 'tokenizer'}"
  for flags in (
    [workdir, "--split=train", "a.mp4", "b.npz"],
    [workdir, "b.npz"],
    [workdir, "--clips=3", "a.mp4", "b.npz"],
    [workdir, "--split=eval", "--clips=0", "b.npz"],
    [workdir, "--tasks=generator/clips", "a.mp4", "b.npz"],
  ):
    with pytest.raises(SystemExit):
      encode.main(flags)
  check_names(capsys.readouterr().err, "--split", "OUTPUT")
  with error_names(ValueError, "--tasks=tokenizer/clips", "stage.tasks"):
    flags = ["--split=eval", "--tasks=tokenizer/clips", str(folder / "b.npz")]
    encode.main([workdir, *flags])
  with error_names(FileExistsError, folder / "eval.npz", "--overwrite"):
    encode.main([workdir, "--split=eval", str(folder / "eval.npz")])
