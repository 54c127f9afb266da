"""Exports of a generator: samples, its tokenizer, load_generator."""

import json

import jax
import numpy as np
import pytest

import magvit_jax
from helpers import untrained_generator
from magvit_jax.data import transforms
from magvit_jax.export import programs, write
from magvit_jax.files import weight_file
from magvit_jax.inference import prompts


@pytest.fixture(scope="module")
def out(tmp_path_factory):
  out = tmp_path_factory.mktemp("export") / "out"
  return write.write(untrained_generator.folder(), out, platforms=["cpu"])


@pytest.fixture(scope="module")
def gen():
  return magvit_jax.load_generator(untrained_generator.folder())


@pytest.fixture(scope="module")
def params(out):
  return weight_file.read(out / "params.safetensors")[0]


def test_samples_are_those_of_the_generator(out, gen, params):
  about = json.loads((out / "config.json").read_text())
  clip = transforms.to_float(untrained_generator.clip())
  tasks = [about["tasks"].index(n) for n in ("class_cond", "frame_prediction")]
  sample = programs.program(out, "sample")
  made = sample(
    params,
    np.stack([clip, clip]),
    np.array(tasks, np.int32),
    np.array([about["labels"].index("dog"), -1], np.int32),
    np.uint32(3),
  )
  ids, video = np.asarray(made["ids"]), np.asarray(made["video"])
  # Each row is that of a batch of its own task.
  prompt = prompts.from_label(gen.model)
  own = gen.complete(prompt, gen.label_numbers("dog", 2), seed=3)
  np.testing.assert_array_equal(ids[0], own[0])
  prompt = prompts.predict(gen.model, clip, 1, labelled=False)
  own = gen.complete(prompt, gen.label_numbers(None, 2), seed=3)
  np.testing.assert_array_equal(ids[1], own[1])
  assert video.shape == (2, 9, 16, 24, 3)
  np.testing.assert_allclose(video, gen.decode(ids), atol=1e-5)


def test_load_generator_reads_it_as_it_reads_the_workdir(out, gen):
  same = magvit_jax.load_generator(out)
  assert same.labels == gen.labels and same.method == gen.method
  assert same.tokenizer.fingerprint == gen.tokenizer.fingerprint
  # The programs are made of the same config; compiling them takes longer.
  assert same.tasks.keys() == gen.tasks.keys() and same.shape == gen.shape
  jax.tree.map(np.testing.assert_array_equal, same._params, gen._params)


def test_weights_have_flat_names_and_the_card_shows_how_to_sample(out, params):
  assert {name.split("/")[0] for name in params} == {"generator", "tokenizer"}
  text = (out / "MODEL_CARD.md").read_text()
  assert 'about["tasks"].index("class_cond")' in text
  assert "| classes | cat, dog, 7 |" in text
