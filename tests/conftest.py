"""Settings of every test: CPU only, compiled programs kept between runs."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# A folder for each worker: JAX writes its entries in place, so that another
# process could read half of one.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(
  os.environ.get("JAX_COMPILATION_CACHE_DIR")
  or os.path.join(tempfile.gettempdir(), "magvit_jax_test_cache"),
  os.environ.get("PYTEST_XDIST_WORKER", "one"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import pytest  # noqa: E402
from absl import flags  # noqa: E402

pytest.register_assert_rewrite("helpers")

# Grain reads absl flags in its workers; nothing parses them under pytest.
flags.FLAGS.mark_as_parsed()

# Files of few tests that take long: last, they would keep one worker alone.
FIRST = (
  "test_colabs",
  "test_meshes",
  "test_kill",
  "test_processes",
  "test_restore",
  "test_loop_tokenizer",
  "test_joint",
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in FIRST)
