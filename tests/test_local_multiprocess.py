"""launch/local_multiprocess.sh, with a stand-in for Python."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from helpers.errors import check_names

SCRIPT = pathlib.Path(__file__).parent.parent / "launch/local_multiprocess.sh"
# Counts its starts; `attempt` and `index` are of this one.
STANDIN = """#!/bin/bash
[ "$1" != -c ] || exec {python} "$@"
for flag in "$@"; do case $flag in
  --process=*) index=${{flag#*=}} ;;
  --coordinator=*) echo "${{flag#*=}}" >>{folder}/coordinators ;;
esac; done
echo "$JAX_NUM_CPU_DEVICES $JAX_PLATFORMS" >>{folder}/starts-$index
attempt=$(wc -l <{folder}/starts-$index)
{body}
"""


@pytest.fixture
def launch(tmp_path):
  """Starts the script; each process does `body`, a text of bash."""

  def start(body, *flags):
    standin = tmp_path / "python"
    text = STANDIN.format(python=sys.executable, folder=tmp_path, body=body)
    standin.write_text(text)
    standin.chmod(0o755)
    settings = dict(PYTHON=str(standin), PAUSE_SECONDS="0", GRACE_SECONDS="1")
    return subprocess.Popen(
      ["bash", SCRIPT, *flags, "--", "--config=x", f"--workdir={tmp_path}"],
      env=os.environ | settings,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  return start


def ended(running, folder):
  """(exit code, output, starts of the two processes)."""
  out, _ = running.communicate(timeout=60)
  logs = [folder / f"starts-{i}" for i in range(2)]
  starts = [log.read_text().splitlines() for log in logs if log.exists()]
  return running.returncode, out, starts


def test_a_crash_ends_the_others_and_starts_all_again(launch, tmp_path):
  body = f"""
    if [ $attempt = 1 ] && [ $index = 1 ]; then exit 9; fi
    if [ $attempt = 1 ]; then exec sleep 100; fi
    touch {tmp_path}/DONE"""
  code, out, starts = ended(launch(body, "--devices=4"), tmp_path)
  assert code == 0, out
  assert starts == [["4 cpu"] * 2] * 2
  check_names(out, 9)
  first, again = (tmp_path / "coordinators").read_text().split()[::2]
  assert first.startswith("127.0.0.1:") and again != first


def test_an_error_of_the_user_is_not_repeated(launch, tmp_path):
  body = "[ $index = 1 ] || exit 1; sleep 0.5; exit 2"
  code, _, starts = ended(launch(body), tmp_path)
  assert code == 2 and list(map(len, starts)) == [1, 1]


def test_a_signal_reaches_all_and_is_not_followed_by_a_start(launch, tmp_path):
  body = f"""
    trap 'touch {tmp_path}/saved-$index; exit 143' TERM
    touch {tmp_path}/ready-$index
    while true; do sleep 0.1; done"""
  running = launch(body)
  while len(list(tmp_path.glob("ready-*"))) < 2:
    time.sleep(0.1)
  running.send_signal(signal.SIGTERM)
  code, _, starts = ended(running, tmp_path)
  assert code == 143 and list(map(len, starts)) == [1, 1]
  assert len(list(tmp_path.glob("saved-*"))) == 2


def test_a_dry_run_shows_the_commands(launch, tmp_path):
  code, out, starts = ended(launch("", "--dry-run"), tmp_path)
  first, second = out.splitlines()[1:]
  assert (code, starts) == (0, [])
  assert "-m magvit_jax train --config=x" in first
  assert "--processes=2 --process=0" in first and "--process=1" in second


@pytest.mark.parametrize("flag", ["--processes=0", "--devices=two", "--proces"])
def test_wrong_arguments_are_one_clear_line(launch, tmp_path, flag):
  code, out, _ = ended(launch("", flag), tmp_path)
  assert code == 2 and out.startswith("error: ") and flag in out
