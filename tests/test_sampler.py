"""load_generator on a workdir with the real stage and untrained weights."""

import shutil

import jax
import numpy as np
import pytest

import magvit_jax
from helpers import untrained_generator
from helpers.errors import error_names
from magvit_jax.checkpoints import manifest
from magvit_jax.data import transforms
from magvit_jax.files import workdirs
from magvit_jax.inference import generate, prompts


@pytest.fixture(scope="module")
def gen():
  return magvit_jax.load_generator(untrained_generator.folder())


def sample_ids(gen, label=None, num=1, **rest):
  prompt = prompts.from_label(gen.model)
  return gen.complete(prompt, gen.label_numbers(label, num), **rest)


def predict_ids(gen, video, given=None, num=1, **rest):
  prompt = prompts.predict(gen.model, video, given, labelled=False)
  return gen.complete(prompt, gen.label_numbers(None, num), **rest)


def test_it_says_what_it_is(gen):
  assert gen.shape == (9, 16, 24, 3) and gen.grid == (3, 2, 3)
  assert gen.labels == ("cat", "dog", "7")
  assert gen.given_frames() == {1: "frame_prediction", 5: "frame_prediction_5"}
  assert prompts.from_label(gen.model).task == "class_cond"
  assert gen.method.steps == 3 and gen.method.choice_temperature == 2.0


def test_samples_are_videos_that_follow_the_seed(gen):
  videos = gen.sample("dog", num=2, seed=1)
  assert videos.shape == (2, 9, 16, 24, 3) and videos.dtype == np.float32
  assert np.abs(videos).max() <= 1
  ids = sample_ids(gen, 1, num=2, seed=1)
  assert ids.shape == (2, 3, 2, 3, 2) and ids.min() >= 0 and ids.max() < 4
  np.testing.assert_array_equal(gen.decode(ids), videos)
  assert (ids[0] != ids[1]).any()
  assert (sample_ids(gen, 1, num=2, seed=2) != ids).any()


def test_the_label_reaches_the_network(gen):
  # Sample k has one key, so that only its label can make a difference.
  mixed = sample_ids(gen, ["cat", "7"], num=2)
  twice = sample_ids(gen, [2, 2], num=2)
  assert (mixed[0] != twice[0]).any()
  np.testing.assert_array_equal(mixed[1], twice[1])


@pytest.mark.parametrize("frames,latents", [(1, 1), (5, 2)])
def test_given_frames_keep_their_ids(gen, frames, latents):
  clip = untrained_generator.clip()
  ids = predict_ids(gen, clip, given=frames, num=2, seed=3)
  own = gen.tokenizer.encode(clip)
  np.testing.assert_array_equal(ids[0, :latents], own[:latents])
  np.testing.assert_array_equal(ids[1, :latents], own[:latents])
  assert (ids[0, latents:] != ids[1, latents:]).any()


def test_frames_that_are_not_given_are_not_read(gen):
  clip = untrained_generator.clip()
  other = np.concatenate([clip[:5], untrained_generator.clip(4, seed=9)])
  for same in (other, clip[:5], transforms.to_float(clip[:5])):
    np.testing.assert_array_equal(
      predict_ids(gen, same, given=5, num=2),
      predict_ids(gen, clip, given=5, num=2),
    )
  assert gen.predict(clip, num=2).shape == (2, 9, 16, 24, 3)


def test_reconstruction_is_the_tokenizer_s_own(gen):
  clip = untrained_generator.clip()
  ids = gen.tokenizer.encode(clip)
  np.testing.assert_allclose(
    gen.reconstruct(clip), gen.tokenizer.decode(ids), atol=1e-4
  )


def test_one_program_serves_all_tasks_and_any_number(gen, monkeypatch):
  monkeypatch.setattr(generate, "CHUNK", 2)
  sample_ids(gen, "cat", num=2)
  before = gen._sample._cache_size()
  many = sample_ids(gen, "cat", num=5)
  predict_ids(gen, untrained_generator.clip(), num=2)
  assert gen._sample._cache_size() == before
  assert len(many) == 5 and len(np.unique(many.reshape(5, -1), axis=0)) > 1
  # Sample k depends on the seed and on k alone.
  np.testing.assert_array_equal(many[:2], sample_ids(gen, "cat", num=2))
  five = sample_ids(gen, ["dog", "cat"] * 2 + ["cat"], num=5)
  np.testing.assert_array_equal(many[1::2], five[1::2])


def test_methods_are_changed_by_name(gen):
  with error_names(TypeError, "guidence", "guidance"):
    gen.sample(0, guidence=1.0)
  with error_names(ValueError, 0, "steps"):
    gen.sample(0, steps=0)


@pytest.mark.parametrize(
  "label,named",
  [
    ("dig", ["dig", "dog", "0 (cat), 1 (dog), 2 (7)"]),
    (3, [3]),
    (7, [7, "'7'"]),
    (-1, [-1]),
    (["cat"] * 3, ["num=1"]),
  ],
)
def test_unknown_labels_are_refused(gen, label, named):
  with error_names(ValueError, *named):
    gen.sample(label)


def test_a_name_that_is_a_number_goes_before_the_number(gen):
  assert gen.label_numbers("7", 1).tolist() == [2]
  assert gen.label_numbers("1", 1).tolist() == [1]
  assert gen.label_numbers(None, 2).tolist() == [3, 3]


@pytest.mark.parametrize(
  "video,frames,named",
  [
    (untrained_generator.clip(3), 5, ["(3, 16, 24, 3)", "[t 16 24 3]", 5]),
    (untrained_generator.clip()[:, :8], 1, ["(9, 8, 24, 3)", "[t 16 24 3]"]),
    (untrained_generator.clip()[0], 1, ["(16, 24, 3)", "[t h w 3]"]),
    (untrained_generator.clip(), 3, ["given=3", 1, 5, 9]),
    (
      untrained_generator.clip().astype(np.float32),
      1,
      ["float32", "[0.0, 249.0]", "[-1, 1]"],
    ),
    (np.full((9, 16, 24, 3), np.nan), 1, ["float64", "[nan, nan]", "[-1, 1]"]),
  ],
)
def test_clips_that_do_not_fit_are_refused(gen, video, frames, named):
  with error_names(ValueError, *named):
    gen.predict(video, given=frames)


def test_only_its_own_workdir_is_read(gen, tmp_path):
  moved = tmp_path / "moved"
  shutil.copytree(untrained_generator.folder(), moved)
  again = magvit_jax.load_generator(moved)
  assert again.tokenizer.fingerprint == gen.tokenizer.fingerprint
  jax.tree.map(np.testing.assert_array_equal, again._params, gen._params)


def test_what_cannot_be_loaded_is_said(tmp_path):
  with error_names(OSError, 7, "[4]"):
    magvit_jax.load_generator(untrained_generator.folder(), step=7)
  workdirs.write_config(tmp_path, {"stage": {"name": "tokenizer"}})
  with error_names(ValueError, "tokenizer", "generator"):
    magvit_jax.load_generator(tmp_path)
  with error_names(FileNotFoundError, "config.json"):
    magvit_jax.load_generator(tmp_path / "nothing")


def test_changed_frozen_weights_are_found(tmp_path):
  moved = tmp_path / "moved"
  shutil.copytree(untrained_generator.folder(), moved)
  (moved / "frozen" / "sha256").write_text("0" * 64)
  with error_names(manifest.DamagedError, moved / "frozen", "000000000000"):
    magvit_jax.load_generator(moved)
