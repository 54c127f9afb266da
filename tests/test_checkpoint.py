"""Checkpoints: what comes back, what is passed over, what is refused."""

import pathlib
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.errors import check_names, error_names
from magvit_jax import tree_utils
from magvit_jax.checkpoints import (
  checkpointer,
  checksum,
  frozen_params,
  manifest,
)
from magvit_jax.stages import TrainState

# Orbax leaves coroutines behind when a read fails.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


def make_state(step, width=64):
  """Values depend on the step; random, so that they do not compress."""
  noise = jax.random.normal(jax.random.key(step), (width, width))
  params = {"net": {"kernel": noise, "half": noise[0].astype(jnp.bfloat16)}}
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    opt=({"mu": noise + 1}, ()),
    ema={"net": {"kernel": noise - 1, "half": noise[1].astype(jnp.bfloat16)}},
    frozen={},
    extra={"bad": jnp.zeros((), jnp.int32)},
  )


def abstract(width=64):
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    make_state(0, width),
  )


def save(folder, steps, **options):
  saver = checkpointer.Checkpointer(
    folder, **{"every": 1, "keep": 9, **options}
  )
  for step in steps:
    saver.save(step, make_state(step))
  saver.close()


def restore(folder):
  said = []
  saver = checkpointer.Checkpointer(folder, every=1, say=said.append)
  try:
    return saver.restore(abstract()), said
  finally:
    saver.close()


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert jax.tree.structure(a) == jax.tree.structure(b)


def largest(folder):
  files = [p for p in folder.rglob("*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


def flip_byte(folder):
  flip(largest(folder / "params"))


def flip_byte_without_manifest(folder):
  """As in a checkpoint of a version that wrote none."""
  (folder / manifest.NAME).unlink()
  flip_byte(folder)


def cut_short(folder):
  path = largest(folder / "opt")
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder):
  for path in sorted(folder.rglob("*"), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()


def lose_item(folder):
  empty(folder / "ema")
  (folder / "ema").rmdir()


def test_round_trip_with_containers_and_types(tmp_path):
  save(tmp_path, [3])
  (step, state), said = restore(tmp_path)
  assert step == 3 and not said
  same(state, make_state(3))


def test_nothing_saved_is_none(tmp_path):
  assert restore(tmp_path) == (None, [])


def test_saving_goes_on_while_the_state_is_donated(tmp_path):
  saver = checkpointer.Checkpointer(tmp_path, every=1, keep=9)
  ruin = jax.jit(lambda s: jax.tree.map(jnp.zeros_like, s), donate_argnums=0)
  for step in range(1, 5):
    state = make_state(step, 512)
    saver.save(step, state)
    jax.block_until_ready(ruin(state))
  saver.close()
  for step in range(1, 5):
    loaded = checkpointer.load_params(
      tmp_path, abstract(512).params, "params", step
    )
    same(loaded, make_state(step, 512).params)


@pytest.mark.parametrize(
  "damage",
  [flip_byte, flip_byte_without_manifest, cut_short, empty, lose_item],
)
def test_a_damaged_newest_falls_back_and_says_so(tmp_path, damage):
  save(tmp_path, [1, 2, 3])
  damage(tmp_path / "checkpoints" / "3")
  (step, state), said = restore(tmp_path)
  assert step == 2
  same(state, make_state(2))
  check_names(said[0], "checkpoints/3")
  check_names(said[-1], 2)
  assert (tmp_path / "damaged" / "3").is_dir()
  save(tmp_path, [3])
  assert restore(tmp_path)[0][0] == 3


def test_a_step_that_is_damaged_twice_is_saved_again(tmp_path):
  save(tmp_path, [1])
  for name in ("2", "2_2", "2_3"):
    save(tmp_path, [2])
    cut_short(tmp_path / "checkpoints" / "2")
    assert restore(tmp_path)[0][0] == 1
    assert (tmp_path / "damaged" / name).is_dir()
  assert checkpointer.steps(tmp_path) == [1]


def test_what_a_kill_leaves_of_a_save_and_of_a_removal_is_cleared(tmp_path):
  save(tmp_path, [1, 2])
  folder = tmp_path / "checkpoints"
  for name in ("_CHECKPOINT_METADATA", "commit_success.txt", manifest.NAME):
    (folder / "1" / name).unlink()
  empty(folder / "1" / "params")
  half = folder / "3.orbax-checkpoint-tmp"
  shutil.copytree(folder / "2" / "ema", half / "ema")
  assert restore(tmp_path)[0][0] == 2
  assert not half.exists()
  save(tmp_path, [3], keep=1)
  assert checkpointer.steps(tmp_path) == [3]
  assert restore(tmp_path)[0][0] == 3


def test_none_whole_is_an_error_and_nothing_moves(tmp_path):
  save(tmp_path, [1, 2])
  for step in (1, 2):
    cut_short(tmp_path / "checkpoints" / str(step))
  with error_names(OSError, tmp_path / "checkpoints", "[2, 1]"):
    restore(tmp_path)
  assert checkpointer.steps(tmp_path) == [1, 2]


def test_another_network_is_named_and_not_taken_for_damage(tmp_path):
  save(tmp_path, [1, 2])
  saver = checkpointer.Checkpointer(tmp_path, every=1)
  named = "net/kernel", "(64, 64)", "(8, 8)"
  with error_names(checkpointer.MismatchError, *named):
    saver.restore(abstract(8))
  saver.close()


def test_load_params_reads_one_item_or_a_part_of_it(tmp_path):
  save(tmp_path, [1, 2])
  shapes = jax.eval_shape(lambda: make_state(0)).ema
  same(checkpointer.load_params(tmp_path, shapes), make_state(2).ema)
  same(checkpointer.load_params(tmp_path, shapes, step=1), make_state(1).ema)
  part = {"net": {"kernel": shapes["net"]["kernel"]}}
  kernel = checkpointer.load_params(tmp_path, part)["net"]["kernel"]
  np.testing.assert_array_equal(kernel, make_state(2).ema["net"]["kernel"])


def test_load_params_is_not_stopped_by_a_damaged_other_item(tmp_path):
  save(tmp_path, [1, 2])
  flip_byte(tmp_path / "checkpoints" / "2")
  shapes = jax.eval_shape(lambda: make_state(0)).ema
  same(checkpointer.load_params(tmp_path, shapes), make_state(2).ema)


def test_load_params_says_what_there_is(tmp_path):
  with error_names(OSError, tmp_path / "checkpoints"):
    checkpointer.load_params(tmp_path, {})
  save(tmp_path, [4])
  with error_names(OSError, tmp_path / "checkpoints", 5, "[4]"):
    checkpointer.load_params(tmp_path, {}, step=5)


def test_only_due_forced_and_best_steps_are_saved(tmp_path):
  saver = checkpointer.Checkpointer(
    tmp_path, every=5, keep=1, best="score", best_mode="min"
  )
  saved = [
    saver.save(1, make_state(1), {"score": 3.0}),
    saver.save(2, make_state(2), {"score": 4.0}),
    saver.save(3, make_state(3), {"score": float("nan")}),
    saver.save(4, make_state(4)),
    saver.save(5, make_state(5)),
    saver.save(6, make_state(6), force=True),
    saver.save(6, make_state(6), force=True),
  ]
  saver.close()
  assert saved == [True, False, False, False, True, True, False]
  assert checkpointer.steps(tmp_path) == [1, 6]


def test_an_unknown_best_metric_is_named_and_the_step_kept(tmp_path):
  saver = checkpointer.Checkpointer(tmp_path, every=5, best="eval_psnrr")
  with error_names(KeyError, "checkpoint.best", "eval_psnrr", "eval_psnr", 3):
    saver.save(3, make_state(3), {"eval_psnr": 3.0})
  saver.close()
  assert checkpointer.steps(tmp_path) == [3]


@pytest.mark.parametrize(
  "options, named",
  [
    (dict(keep=0), ["checkpoint.keep", 0]),
    (dict(best_mode="low"), ["checkpoint.best_mode", "low"]),
  ],
)
def test_wrong_options(tmp_path, options, named):
  with error_names(ValueError, *named):
    checkpointer.Checkpointer(tmp_path, every=1, **options)


def test_frozen_is_saved_and_checked(tmp_path):
  frozen = {"vgg": jnp.arange(3000.0)}
  shapes = jax.eval_shape(lambda: frozen)
  frozen_params.save(tmp_path, {})
  assert not (tmp_path / "frozen").exists()
  frozen_params.save(tmp_path, {"vgg": jnp.zeros(3000)})
  frozen_params.save(tmp_path, frozen)
  before = (tmp_path / "frozen" / "arrays").stat().st_mtime_ns
  frozen_params.save(tmp_path, frozen)
  assert (tmp_path / "frozen" / "arrays").stat().st_mtime_ns == before
  same(frozen_params.restore_arrays(tmp_path, shapes), frozen)
  (tmp_path / "frozen" / "sha256").write_text("0" * 64)
  with error_names(manifest.DamagedError, tmp_path / "frozen", "000000000000"):
    frozen_params.restore_arrays(tmp_path, shapes)
  # A kill came before the hash.
  (tmp_path / "frozen" / "sha256").unlink()
  largest(tmp_path / "frozen").write_bytes(b"")
  frozen_params.save(tmp_path, frozen)
  same(frozen_params.restore_arrays(tmp_path, shapes), frozen)
  flip(largest(tmp_path / "frozen"))
  with error_names(
    manifest.DamagedError, tmp_path / "frozen" / "arrays", "vgg"
  ):
    frozen_params.restore_arrays(tmp_path, shapes)


@pytest.mark.parametrize(
  "dtype", ["float32", "bfloat16", "int32", "uint8", "bool"]
)
def test_checksum_sees_one_changed_value_and_swapped_ones(dtype):
  tree = {"a": jnp.arange(24).reshape(4, 6).astype(dtype), "b": jnp.ones(3)}
  before = checksum.bits(tree)
  changed = {**tree, "a": tree["a"].at[2, 1].set(jnp.zeros((), dtype))}
  assert checksum.bits(changed) != before
  swapped = {**tree, "a": tree["a"].at[0, :2].set(tree["a"][0, 1::-1])}
  assert checksum.bits(swapped) != before


def test_a_full_disk_is_an_os_error_and_keeps_the_last_whole(tmp_path):
  # The limit holds for good in a process, and pytest writes files too.
  code = f"""
    import resource, signal, sys
    sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
    from test_checkpoint import checkpointer, make_state
    saver = checkpointer.Checkpointer({str(tmp_path)!r}, every=1)
    saver.save(1, make_state(1))
    saver.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({2**20}, {2**20}))
    try:
      saver.save(2, make_state(2, 1024))
      saver.wait()
    except OSError as error:
      print("OSError:", error)
  """
  out = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)],
    capture_output=True,
    text=True,
    timeout=120,
  ).stdout
  check_names(out, "OSError", 2)
  (step, state), _ = restore(tmp_path)
  assert step == 1
  same(state, make_state(1))


def test_hashes_are_those_that_old_runs_and_token_files_hold():
  """Of commit 34eb2ca: fingerprints and workdir/frozen/sha256 are compared."""
  tree = {
    "a": {"k": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "b": jnp.arange(3, dtype=jnp.int32),
    "s": np.float32(2),
  }
  assert checksum.fingerprint(tree) == "666accd1de3ed269"
  found = checksum.sha256(tree_utils.named(tree))
  assert found.startswith("b191c44d25c31f30e393f1e81edadc1e")


def test_arrays_of_any_dtype_have_a_hash():
  ones = [jnp.ones(2, t) for t in (jnp.bfloat16, jnp.bool_, jnp.int8)]
  hashes = {checksum.sha256({"x": x}) for x in (*ones, jnp.ones((0, 2)))}
  assert len(hashes) == 4
