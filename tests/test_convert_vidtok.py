"""VidTok: its arrays in, the same ids and pixels out; and back."""

import functools
import json

import numpy as np
import pytest
from converted import (
  check_both_ways,
  check_numbers,
  check_refused,
  check_shapes,
)
from parity import vidtok as peer

from magvit_jax import tree as trees
from magvit_jax.convert import Model, folder, vidtok

names = pytest.mark.parametrize("name", peer.CLIPS)


@functools.cache
def drawn(name):
  return peer.drawn(trees.named(folder.abstract(peer.stage(name))))


@names
def test_latents_ids_and_pixels_are_those_of_the_reference(name):
  with np.load(peer.GOLDEN / "nets.npz") as file:
    own = {
      key.removeprefix(f"{name}/"): array
      for key, array in file.items()
      if key.startswith(f"{name}/")
    }
  check_numbers(peer.stage(name), drawn(name), peer.clip(name), own)


@names
def test_names_go_both_ways(name):
  check_both_ways(vidtok, peer.stage(name), drawn(name))


@names
def test_published_nets_have_the_public_names_and_shapes(name):
  shapes = json.loads((peer.GOLDEN / "names.json").read_text())
  check_shapes(vidtok, name, shapes[name])


def test_sizes_differ_in_latents_alone():
  small, middle, large = (
    vidtok.MODELS[f"fsq_causal_488_{size}"] for size in (4096, 32768, 262144)
  )
  assert small.backbone == middle.backbone == large.backbone
  for model, size in ((small, 4096), (middle, 32768), (large, 262144)):
    assert np.prod(model.quantizer["levels"]) == size


def test_other_arrays_are_refused_and_losses_left_out():
  name = "fsq_causal_488_32768"
  stage = peer.stage(name)
  tiny = Model(stage["backbone"], stage["quantizer"], 9, (16, 16))
  arrays = drawn(name)
  state = vidtok.public(arrays, stage)
  state["loss.discriminator.main.0.weight"] = np.ones(3, np.float32)
  found = folder.to_ours(vidtok, state, tiny, "the file")
  assert trees.named(found).keys() == arrays.keys()
  check_refused(vidtok, tiny, vidtok.select(state))
