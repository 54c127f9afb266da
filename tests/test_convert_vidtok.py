"""VidTok: its arrays in, the same ids and pixels out; and back."""

import numpy as np
import pytest
from parity import vidtok as peer

from helpers.convert_checks import (
  check_both_ways,
  check_numbers,
  check_refused,
  check_shapes,
)
from magvit_jax.convert.tokenizers import vidtok

names = pytest.mark.parametrize("name", peer.CLIPS)


@names
def test_latents_ids_and_pixels_are_those_of_the_reference(name):
  check_numbers(vidtok, peer, name)


@names
def test_names_go_both_ways(name):
  check_both_ways(vidtok, peer.model(name))


@names
def test_published_nets_have_the_public_names_and_shapes(name):
  check_shapes(vidtok, peer, name)


def test_sizes_differ_in_latents_alone():
  small, middle, large = (
    vidtok.MODELS[f"fsq_causal_488_{size}"] for size in (4096, 32768, 262144)
  )
  assert small.backbone == middle.backbone == large.backbone
  for model, size in ((small, 4096), (middle, 32768), (large, 262144)):
    assert np.prod(model.quantizer["levels"]) == size


def test_other_arrays_are_refused_by_their_names():
  check_refused(vidtok, peer.model("fsq_causal_488_32768"))


def test_what_only_training_needs_is_left_out():
  names = "encoder.a", "decoder.b", "loss.discriminator.c", "model_ema.d"
  found = vidtok.select(dict.fromkeys(names, np.ones(1)))
  assert found.keys() == {"encoder.a", "decoder.b"}
