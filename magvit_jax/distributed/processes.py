"""Several processes as one run: what they tell each other and must agree on.

On a TPU pod, a cluster or several CPUs each host runs the same command; see
joining.py. What processes tell each other goes through JAX's coordination
service, which process 0 runs, and never through the devices. A process alone
needs none of it: the functions here then return at once.
"""

import functools
import hashlib
import itertools
import json
import operator
import pathlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the service has no public name
from jax.experimental import multihost_utils

from magvit_jax.checkpoints import checksum
from magvit_jax.files import paths, workdirs
from magvit_jax.types import PyTree

ROOT = "magvit_jax"  # of the names in the service
MEETING = 1800  # seconds that `gather` waits for the slowest process
SEEING = 5.0  # seconds until all see a file

_calls = itertools.count()


class LostError(RuntimeError):
  """Processes that do not find each other; another start may help."""


def count() -> int:
  """How many processes there are, also before JAX has looked for devices."""
  if distributed.global_state.client:
    return distributed.global_state.num_processes
  return jax.process_count()


def index() -> int:
  """Which of them this is."""
  if distributed.global_state.client:
    return distributed.global_state.process_id
  return jax.process_index()


def title() -> str:
  """'process 1 of 4: ', or '' for a process alone."""
  return f"process {index()} of {count()}: " if count() > 1 else ""


def gather(value: Any) -> list[Any]:
  """What each process has to say, by its number; all of them call it.

  Args:
    value: JSON, as small as may be.

  Raises:
    ValueError: several processes that did not `join`.
    LostError: one of them did not call it.
  """
  if count() == 1:
    return [value]
  service = client()
  folder = f"{ROOT}/gather/{next(_calls)}"
  service.key_value_set(f"{folder}/{index()}", json.dumps(value))
  try:
    service.wait_at_barrier(folder, MEETING * 1000)
  except jax.errors.JaxRuntimeError as error:
    raise LostError(
      f"not all {count()} processes came to the same point within {MEETING} s "
      f"({error}); look at what the others printed, and start all again"
    ) from error
  found = {number(k): v for k, v in service.key_value_dir_get(folder)}
  return [json.loads(found[i]) for i in sorted(found)]


def of_first(value: Any) -> Any:
  """What process 0 has, on every process."""
  return gather(value)[0]


def agree(what: str, facts: Mapping[str, Any]) -> None:
  """Refuses, on every process, to go on with unlike facts.

  Args:
    what: names them in the message.
    facts: JSON; only its hash is sent unless they differ.

  Raises:
    ValueError: they differ; the message has the keys and the processes.
  """
  if count() == 1:
    return
  text = json.dumps(facts, sort_keys=True, default=str)
  marks = gather(hashlib.sha256(text.encode()).hexdigest())
  if len(set(marks)) == 1:
    return
  every = gather(json.loads(text))
  lines = []
  for mark in dict.fromkeys(marks):
    if mark != marks[0]:
      same = [i for i, other in enumerate(marks) if other == mark]
      lines.append(f"process 0 -> {_list(same)}:")
      changes = workdirs.diff(every[0], every[same[0]])
      lines += [f"  {change}" for change in changes]
  raise ValueError(
    f"the processes do not agree on {what}:\n" + "\n".join(lines) + "\nStart "
    "all of them with the same command, on the same version of everything"
  )


def facts(cfg: Any, **flags: Any) -> dict[str, Any]:
  """What must be the same on all processes: see `agree`.

  Args:
    cfg: the config.
    **flags: others that the user gave.
  """
  folder = pathlib.Path(__file__).parent
  code = {
    str(path.relative_to(folder)): checksum.file_sha256(path)[:12]
    for path in sorted(folder.rglob("*.py"))
  }
  return {
    "processes": count(),
    "config": workdirs.normal(cfg),
    "flags": flags,
    "versions": workdirs.versions(),
    "code": code,
  }


def check_shared(folder: paths.Name) -> None:
  """OSError unless every process sees what process 0 writes into a folder."""
  if count() == 1:
    return
  mark = paths.as_path(folder) / f".seen_by_all_{of_first(uuid.uuid4().hex)}"
  if index() == 0:
    mark.write_bytes(b"x")
  gather("written")
  # Network file systems remember for a moment that a file was not there.
  until = time.monotonic() + SEEING
  while not mark.exists() and time.monotonic() < until:
    time.sleep(0.25)
  blind = [i for i, seen in enumerate(gather(mark.exists())) if not seen]
  if index() == 0:
    mark.unlink(missing_ok=True)
  if blind:
    raise OSError(
      f"what process 0 writes into the workdir {folder} is not there for "
      f"{_list(blind)}; several processes need one that all of them share: "
      "gs://, or a network disk mounted at the same place"
    )


def put(tree: PyTree, shardings: PyTree) -> PyTree:
  """Arrays that every process has whole, as `shardings` lay them over all."""
  if count() == 1:
    return jax.device_put(tree, shardings)

  def place(array, sharding):
    array = np.asarray(array)
    part = functools.partial(operator.getitem, array)
    return jax.make_array_from_callback(array.shape, sharding, part)

  # jax.device_put would first send all of them around, to compare.
  return jax.tree.map(place, tree, shardings)


def fetch(tree: PyTree) -> PyTree:
  """Arrays on the host of every process, also those it has only parts of."""

  def whole(array):
    if array.is_fully_addressable or array.is_fully_replicated:
      return array
    return multihost_utils.process_allgather(array, tiled=True)

  return jax.device_get(jax.tree.map(whole, tree))


def total(name: str, own: int) -> int:
  """Sum over the processes of a number that each tells when it changes.

  Nothing waits for anything: it may learn of others a moment later.
  """
  if count() == 1:
    return own
  service, folder = client(), f"{ROOT}/total/{name}"
  service.key_value_set(f"{folder}/{index()}", f"{own}", allow_overwrite=True)
  return sum(int(value) for _, value in service.key_value_dir_get(folder))


def client() -> Any:
  """JAX's side of the coordination service.

  Raises:
    ValueError: JAX has several processes, as on a TPU pod, but no service.
  """
  found = distributed.global_state.client
  if found is None:
    raise ValueError(
      f"JAX sees {jax.process_count()} processes, but they were not started as "
      "one run; start each with --coordinator=auto, or with --coordinator, "
      "--processes and --process"
    )
  return found


def number(key: str) -> int:
  """The process that a name in the service ends with."""
  return int(key.rsplit("/", 1)[1])


def _list(numbers: list[int]) -> str:
  """'process 1' or 'processes 1, 3'."""
  shown = ", ".join(map(str, numbers[:8])) + (" …" if numbers[8:] else "")
  return f"{'process' if len(numbers) == 1 else 'processes'} {shown}"
