"""Components are found by file name, and wrong names are answered."""

import ml_collections
import pytest

import magvit_jax
from magvit_jax import registry


@pytest.mark.parametrize(
  "family",
  ["quantizers", "tokenizers", "nets", "metrics", "data", "stages", "convert"],
)
def test_every_file_of_a_family_loads(family):
  names = registry.names(family)
  assert names and list(names) == sorted(names)
  for name in names:
    assert callable(registry.load(family, name))


def test_a_wrong_name_is_answered_with_the_near_one():
  with pytest.raises(KeyError, match="did you mean 'psnr'"):
    registry.load("metrics", "pnsr")
  with pytest.raises(KeyError, match="families are"):
    registry.names("quantisers")
  with pytest.raises(KeyError, match="needs a key 'name'"):
    registry.build("metrics", {"files": 3})


def test_a_wrong_argument_is_answered_with_the_near_one():
  with pytest.raises(TypeError, match="did you mean 'files'"):
    registry.build("metrics", {"name": "psnr", "file": 3})


def test_an_argument_its_owner_sets_is_refused_in_the_config():
  with pytest.raises(TypeError, match="set by its owner"):
    registry.build("metrics", {"name": "psnr", "files": 3}, files=2)


def test_config_dicts_become_plain_values():
  cfg = ml_collections.ConfigDict({"name": "psnr", "files": 2})
  assert magvit_jax.build("metrics", cfg).files == 2
  nested = ml_collections.ConfigDict({"a": {"b": [1, [2, 3]]}})
  assert registry.plain(nested) == {"a": {"b": (1, (2, 3))}}
