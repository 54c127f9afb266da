"""What one of two processes does, for test_processes.py and test_meshes.py.

cd tests && python -m helpers.two_processes WHAT FOLDER PORT INDEX
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from helpers import TESTS, mesh_training, toy_training
from magvit_jax import sharding
from magvit_jax.distributed import clusters, initialize, processes
from magvit_jax.training import loop

FLAGS = mesh_training.XLA_FLAGS.replace("count=8", "count=4")
# Whole arrays lie on both of them.
RUN = dict(
  batch=8,
  steps=24,
  eval=dict(every=10, batch=8),
  checkpoint=dict(every=8),
  stage=dict(width=8),
  mesh=dict(data=1, fsdp=8),
)


def start(what, folder, count=2, module="helpers.two_processes"):
  """Starts `count` processes; their outputs are in FOLDER/WHAT-INDEX.txt."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  env = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
  # Both would write the same entries at once.
  env["JAX_ENABLE_COMPILATION_CACHE"] = "false"
  own = [sys.executable, "-m", module, what, str(folder), str(port)]
  running = []
  for index in range(count):
    with (folder / f"{what}-{index}.txt").open("w") as out:
      to = dict(cwd=TESTS, env=env, stdout=out, stderr=out)
      running.append(subprocess.Popen([*own, f"{index}"], **to))
  return running


def end(running, seconds=500):
  """Their exit statuses; those that have none by then are killed."""
  until = time.monotonic() + seconds
  try:
    return [p.wait(max(until - time.monotonic(), 0.1)) for p in running]
  finally:
    for process in running:
      process.kill()
      process.wait()


def train(folder, **changes):
  return toy_training.train(folder, **{**RUN, **changes})


def meshes(folder, index):
  """Both stages on a mesh over two processes."""
  for make in (mesh_training.generator, mesh_training.tokenizer):
    path = folder / f"{make.__name__}-two.json"
    out = mesh_training.train(
      *make(), mesh_training.TWO, path.with_suffix(".npz")
    )
    if index == 0:
      path.write_text(json.dumps(out))


def runs(folder, index):
  """A run, one that SIGTERM cuts in two, and one that loses a process."""
  told = {"title": processes.title()}
  with pytest.raises(ValueError) as refused:
    facts = processes.facts(toy_training.config(seed=index), resume="auto")
    facts["code"]["here.py"] = index
    processes.agree("what to run", facts)
  told["refused"] = str(refused.value)
  told["gathered"] = processes.gather(index)
  processes.total("number", index + 1)
  processes.gather(None)
  told["total"] = processes.total("number", index + 1)
  told["blind"] = blind(folder / f"own-{index}")
  told["whole"] = train(folder / "whole", broken=True)
  with pytest.MonkeyPatch.context() as patch:
    slow(patch, index, signal.SIGTERM)
    told["cut"] = train(folder / "cut", broken=True)
  told["handler"] = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  told["again"] = train(folder / "cut", broken=True)
  (folder / f"runs-{index}.json").write_text(json.dumps(told))
  slow(pytest.MonkeyPatch(), index, signal.SIGKILL)
  train(folder / "lost")


def blind(own):
  """What is said of a workdir that each process has for itself."""
  own.mkdir()
  with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError) as error:
    patch.setattr(processes, "SEEING", 0.5)
    processes.check_shared(own)
  return str(error.value)


def slow(patch, index, number):
  """Process 1 gets a signal in step 3; the steps take a while."""
  original = loop._Loop._one_step

  def one_step(self):
    original(self)
    time.sleep(0.15)
    if index == 1 and self.step == 3:
      os.kill(os.getpid(), number)

  patch.setattr(loop._Loop, "_one_step", one_step)


def unreadable(folder, index):
  """Process 1 finds a file that it cannot read, and may not replace it."""

  class Source(toy_training.ToySource):
    on_corrupt = "raise"

  cfg = toy_training.config(**RUN)
  parts = toy_training.parts(cfg, width=8)
  parts = parts._replace(train=Source(10, broken=index == 1))
  loop.run(cfg, folder / "unreadable", parts=parts)


def main(what, folder, port, index):
  # The nets are tiny, so that nothing of them would be split.
  sharding.SMALL = 16
  initialize.HEARTBEAT, initialize.POLL, initialize.QUIET = 10, 0.2, 3.0
  place = clusters.Place(f"127.0.0.1:{port}", 2, int(index))
  with initialize.join(place):
    WHAT[what](pathlib.Path(folder), int(index))


WHAT = {"meshes": meshes, "runs": runs, "unreadable": unreadable}

if __name__ == "__main__":
  main(*sys.argv[1:])
