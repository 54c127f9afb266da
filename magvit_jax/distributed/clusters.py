"""Whether this process is one of several, from flags or the environment.

Nothing here touches JAX: it is asked before JAX may start.
"""

import argparse
import os
from collections.abc import Mapping
from typing import NamedTuple

AUTO = "auto"
NOTHING_FOUND = (
  "JAX finds no cluster here ({error}); it knows TPU pods, GKE, SLURM steps "
  "and Open MPI. Elsewhere give --coordinator=HOST:PORT --processes=N "
  "--process=I"
)
_SLURM = (
  "SLURM_JOB_ID",
  "SLURM_STEP_NODELIST",
  "SLURM_NTASKS",
  "SLURM_PROCID",
  "SLURM_LOCALID",
)


class Place(NamedTuple):
  """Where a process meets the others, and which one it is.

  Attributes:
    coordinator: HOST:PORT of process 0; '' lets JAX find it.
    count: number of processes; None lets JAX find it.
    index: number of this one, from 0; None lets JAX find it.
  """

  coordinator: str = ""
  count: int | None = None
  index: int | None = None

  @property
  def detect(self) -> bool:
    """Whether JAX is to find something out."""
    return not self.coordinator or None in (self.count, self.index)

  def __str__(self) -> str:
    if self.detect:
      return "a process of a cluster that JAX looks for"
    return f"process {self.index} of {self.count} at {self.coordinator}"


def add_flags(parser: argparse.ArgumentParser) -> None:
  """--coordinator, --processes and --process."""
  parser.add_argument(
    "--coordinator",
    default="",
    metavar="HOST:PORT",
    help="where process 0 of several is, and a free port there; auto: let JAX "
    "find that and the next two, on a TPU pod, GKE, SLURM or Open MPI. Without "
    "it the environment decides",
  )
  parser.add_argument(
    "--processes", type=int, metavar="N", help="how many processes there are"
  )
  parser.add_argument(
    "--process", type=int, metavar="I", help="which one this is, from 0"
  )


def find(
  coordinator: str = "",
  count: int | None = None,
  index: int | None = None,
  env: Mapping[str, str] = os.environ,
) -> Place | None:
  """The place of this process; None is alone.

  Args:
    coordinator: 'HOST:PORT', 'auto' (JAX looks for what is not given), or '':
      then JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say
      it, or a cluster of several processes does.
    count: number of processes; 1 is alone, whatever else is there.
    index: number of this one.
    env: the environment.

  Raises:
    ValueError: one of the three is missing, or they contradict each other.
  """
  if count == 1 and index in (None, 0) and not coordinator:
    return None
  if coordinator == AUTO:
    return Place("", count, index)
  names = ("--coordinator", "--processes", "--process")
  if not coordinator and count is None and index is None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    coordinator = env.get(names[0], "")
    count, index = _whole(names[1], env), _whole(names[2], env)
    if (count is None or index is None) and several(env):
      return Place(coordinator, count, index)
    if not coordinator and count in (None, 1):
      return None
  return _checked(names, Place(coordinator, count, index))


def several(env: Mapping[str, str]) -> str:
  """The cluster that clearly says it has several processes, or ''."""
  if all(name in env for name in _SLURM) and env["SLURM_NTASKS"] != "1":
    return "SLURM"
  if "OMPI_MCA_orte_hnp_uri" in env and env.get("OMPI_COMM_WORLD_SIZE") != "1":
    return "Open MPI"
  hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
  slices = env.get("MEGASCALE_NUM_SLICES", "1")
  return "TPU" if "," in (hosts or "") or slices not in ("", "1") else ""


def split(address: str) -> tuple[str, int]:
  """('host', port) of 'host:port'.

  Raises:
    ValueError: it has another form.
  """
  host, _, port = address.rpartition(":")
  if not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise ValueError(
      f"the coordinator is {address!r}; it is HOST:PORT, such as "
      "10.0.0.1:8476, or auto"
    )
  return host.strip("[]"), int(port)


def _whole(name: str, env: Mapping[str, str]) -> int | None:
  text = env.get(name, "")
  if text and not text.isdigit():
    raise ValueError(f"{name} is {text!r}; it must be a whole number")
  return int(text) if text else None


def _checked(names: tuple[str, str, str], place: Place) -> Place:
  given = (place.coordinator or None, place.count, place.index)
  missing = [n for n, v in zip(names, given, strict=True) if v is None]
  if missing:
    shown = zip(names, given, strict=True)
    there = [f"{name}={value}" for name, value in shown if value is not None]
    raise ValueError(
      f"{', '.join(there)} without {' and '.join(missing)}: several processes "
      f"need all three, {names[0]}=HOST:PORT, {names[1]}=N and {names[2]}=I "
      "from 0 to N - 1"
    )
  split(place.coordinator)
  if not 0 <= place.index < place.count:
    raise ValueError(
      f"{names[2]}={place.index} of {names[1]}={place.count}: processes are "
      "counted from 0, so it lies from 0 to N - 1, and N is at least 1"
    )
  return place
