"""Two processes with 4 CPU devices each are one run, also when they end.

What they compute is compared in test_meshes.py.
"""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from helpers import toy_training, two_processes
from helpers.errors import check_names
from magvit_jax.distributed import clusters, initialize, processes


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """(folder, exit statuses) of `two_processes.runs`."""
  folder = tmp_path_factory.mktemp("pair")
  return folder, two_processes.end(two_processes.start("runs", folder))


def told(pair, index):
  path = pair[0] / f"runs-{index}.json"
  assert path.exists(), printed(pair, index)[-3000:]
  return json.loads(path.read_text())


def printed(pair, index):
  return (pair[0] / f"runs-{index}.txt").read_text()


def final(folder, item="params"):
  return toy_training.final(folder, item, width=8)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """The same run by one process with one device."""
  folder = tmp_path_factory.mktemp("alone")
  mesh = dict(data=-1, fsdp=1)
  return folder, two_processes.train(folder, broken=True, mesh=mesh)


def test_each_process_knows_the_others(pair):
  for index in range(2):
    assert told(pair, index)["title"] == f"process {index} of 2: "
    assert told(pair, index)["gathered"] == [0, 1]
    assert told(pair, index)["total"] == 3


def test_unlike_configs_and_code_are_refused_everywhere(pair):
  for index in range(2):
    text = told(pair, index)["refused"]
    check_names(text, "code.here.py: 0 -> 1", "config.seed: 0 -> 1")
    assert "resume" not in text


def test_a_workdir_that_is_not_shared_is_refused_everywhere(pair):
  for index in range(2):
    check_names(told(pair, index)["blind"], f"own-{index}", "process 1")


def test_a_run_of_two_processes_is_that_of_one(pair, alone):
  folder, result = alone
  for index in range(2):
    whole = told(pair, index)["whole"]
    assert whole["step"] == 24 and whole["stopped"] == 0
    assert whole["eval_psnr"] == pytest.approx(result["eval_psnr"], rel=1e-5)
  one, two = (
    toy_training.rows(path, "train") for path in (folder, pair[0] / "whole")
  )
  assert [row["step"] for row in two] == list(range(1, 25))
  for name in ("loss", "draw"):
    values = [row[name] for row in two]
    assert values == pytest.approx([row[name] for row in one], rel=1e-5)
  for item in ("params", "opt", "ema", "extra"):
    here, there = final(folder, item), final(pair[0] / "whole", item)
    # Gradients are added up in another order, and Adam divides by their size.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      here,
      there,
    )
  # Process 0 alone has half of the clips.
  assert two[-1]["skipped"] > 0.7 * one[-1]["skipped"]


def test_sigterm_to_one_process_stops_both_at_one_step(pair):
  cut = [told(pair, index)["cut"] for index in range(2)]
  assert cut[0] == cut[1]
  assert 3 < cut[0]["step"] < 24 and cut[0]["stopped"] == 15
  # A second one quits: it is no longer left to JAX.
  assert all(told(pair, index)["handler"] for index in range(2))
  # Only the first process reports it.
  step = f"step {cut[0]['step']}"
  reported = [
    re.search(rf"SIGTERM .*{step}\b", printed(pair, i)) for i in (0, 1)
  ]
  assert reported[0] and not reported[1]


def test_the_run_that_was_cut_in_two_is_bit_for_bit_the_other(pair):
  whole, cut = pair[0] / "whole", pair[0] / "cut"
  assert told(pair, 0)["again"] == told(pair, 0)["whole"]
  for item in ("params", "opt", "ema", "extra"):
    jax.tree.map(
      np.testing.assert_array_equal, final(cut, item), final(whole, item)
    )
  losses = [
    [r["loss"] for r in toy_training.rows(f, "train")] for f in (whole, cut)
  ]
  assert losses[0] == losses[1]
  assert toy_training.rows(cut, "eval") == toy_training.rows(whole, "eval")
  assert (cut / "DONE").exists()


def test_a_lost_process_ends_the_other(pair):
  status, killed = pair[1]
  assert killed == -9 and status not in (0, None)
  assert not (pair[0] / "lost" / "DONE").exists()


def test_what_fails_on_one_process_ends_both_with_its_message(tmp_path):
  codes = two_processes.end(two_processes.start("unreadable", tmp_path))
  ends = [(tmp_path / f"unreadable-{i}.txt").read_text() for i in range(2)]
  assert codes == [2, 2], ends
  for text in ends:
    check_names(text, "process 1", "a.mp4")
  assert "Traceback" not in ends[0] + ends[1]


def test_a_coordinator_that_does_not_answer_is_told():
  code = (
    "from magvit_jax.distributed import clusters\n"
    "from magvit_jax.distributed import initialize\n"
    "initialize.PATIENCE = 2\n"
    "with initialize.join(clusters.Place('127.0.0.1:9', 2, 1)): pass\n"
  )
  run = subprocess.run([sys.executable, "-c", code], capture_output=True)
  text = run.stderr.decode()
  assert run.returncode == 1
  check_names(text, "127.0.0.1:9", "process 1 of 2", "process 0", "2 s")
  assert len(text.splitlines()) == 1


def test_a_process_alone_asks_nobody(tmp_path):
  with initialize.join(None):
    assert processes.gather(7) == [7] and processes.of_first(7) == 7
    processes.agree("anything", {"a": 1})
    processes.check_shared(tmp_path)
    assert processes.total("number", 5) == 5 and processes.title() == ""
  with pytest.raises(OSError), initialize.join(clusters.Place("h:1", 1, 0)):
    raise OSError("passes")


def test_jax_errors_are_told_from_those_of_users():
  try:
    try:
      raise ValueError("UNKNOWN: Gloo all-reduce failed: reset by peer")
    except ValueError as error:
      raise OSError("the checkpoint could not be written") from error
  except OSError as error:
    assert initialize._is_of_runtime(error)
  assert not initialize._is_of_runtime(ValueError("steps is 0"))
