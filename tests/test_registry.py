"""Components are found by file name, and wrong names are answered."""

import ml_collections
import pytest

import magvit_jax
from helpers.errors import error_names
from magvit_jax import registry


@pytest.mark.parametrize("family", registry.SYMBOLS)
def test_every_file_of_a_family_loads(family):
  names = registry.names(family)
  assert names and list(names) == sorted(names)
  for name in names:
    assert callable(registry.load(family, name))


def test_a_wrong_name_is_answered_with_the_near_one():
  with error_names(KeyError, "metrics", "pnsr", "psnr"):
    registry.load("metrics", "pnsr")
  with error_names(KeyError, "quantisers", "quantizers"):
    registry.names("quantisers")
  with error_names(KeyError, "metrics", "name", "files"):
    registry.build("metrics", {"files": 3})


def test_a_wrong_argument_is_answered_with_the_near_one():
  with error_names(TypeError, "metrics/psnr", "file", "files"):
    registry.build("metrics", {"name": "psnr", "file": 3})


def test_an_argument_its_owner_sets_is_refused_in_the_config():
  with error_names(TypeError, "metrics/psnr", "files", 2):
    registry.build("metrics", {"name": "psnr", "files": 3}, files=2)


def test_config_dicts_become_plain_values():
  cfg = ml_collections.ConfigDict({"name": "psnr", "files": 2})
  assert magvit_jax.build("metrics", cfg).files == 2
  nested = ml_collections.ConfigDict({"a": {"b": [1, [2, 3]]}})
  assert registry.plain(nested) == {"a": {"b": (1, (2, 3))}}


def test_a_folder_of_ones_own_holds_components(tmp_path):
  mine = tmp_path / "mine"
  mine.mkdir()
  text = (
    "from magvit_jax.metrics import psnr\n\n\nclass Metric(psnr.Metric): ...\n"
  )
  (mine / "own_psnr.py").write_text(text)
  with error_names(KeyError, "metrics", "own_psnr"):
    registry.load("metrics", "own_psnr")
  with error_names(FileNotFoundError, tmp_path / "absent", "metrics"):
    registry.add_folder("metrics", tmp_path / "absent")
  before = registry.names("metrics")
  try:
    registry.add_folder("metrics", mine)
    registry.add_folder("metrics", mine)  # a second time changes nothing
    assert registry.names("metrics") == tuple(sorted((*before, "own_psnr")))
    assert (
      registry.build("metrics", {"name": "own_psnr", "files": 2}).files == 2
    )
    (tmp_path / "ssim.py").write_text(text)
    with error_names(ValueError, "metrics"):
      registry.add_folder("metrics", tmp_path)
  finally:
    magvit_jax.metrics.__path__.remove(str(mine))
    registry.names.cache_clear()
