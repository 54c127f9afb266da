"""Flags and environments that say whether there are several processes."""

import pytest

from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax.distributed import clusters

JAX = dict(
  JAX_COORDINATOR_ADDRESS="h:1", JAX_NUM_PROCESSES="3", JAX_PROCESS_ID="2"
)
STEP = dict(
  SLURM_JOB_ID="7",
  SLURM_STEP_NODELIST="n[1-4]",
  SLURM_NTASKS="4",
  SLURM_PROCID="0",
  SLURM_LOCALID="0",
)
DETECT = clusters.Place()
PAIR = ("10.0.0.1:8476", 2, 1)


@pytest.mark.parametrize(
  "flags, env, place",
  [
    ((), {}, None),
    (PAIR, {}, clusters.Place(*PAIR)),
    (PAIR, JAX, clusters.Place(*PAIR)),
    (("[::1]:99", 1, 0), {}, clusters.Place("[::1]:99", 1, 0)),
    (("auto",), {}, DETECT),
    (("auto", 2, 1), {}, clusters.Place("", 2, 1)),
    ((), JAX, clusters.Place("h:1", 3, 2)),
    ((), STEP, DETECT),
    (("", 1), STEP, None),
    ((), STEP | {"SLURM_NTASKS": "1"}, None),
    # A batch script runs once, outside of any step.
    ((), {k: v for k, v in STEP.items() if "STEP" not in k}, None),
    ((), STEP | {"JAX_COORDINATOR_ADDRESS": "h:1"}, clusters.Place("h:1")),
    ((), dict(TPU_WORKER_HOSTNAMES="a,b,c,d"), DETECT),
    ((), dict(TPU_PROCESS_ADDRESSES="a:1,b:1"), DETECT),
    ((), dict(TPU_WORKER_HOSTNAMES="a", MEGASCALE_NUM_SLICES="2"), DETECT),
    # What __main__ sets where there is no TPU.
    ((), command.NO_TPU, None),
    ((), dict(OMPI_MCA_orte_hnp_uri="x", OMPI_COMM_WORLD_SIZE="2"), DETECT),
    ((), dict(OMPI_MCA_orte_hnp_uri="x", OMPI_COMM_WORLD_SIZE="1"), None),
    ((), dict(JAX_NUM_PROCESSES="1"), None),
  ],
)
def test_what_flags_and_environment_say(flags, env, place):
  assert clusters.find(*flags, env=env) == place


@pytest.mark.parametrize(
  "flags, env, named",
  [
    (("h:1",), {}, ["--coordinator=h:1", "--processes", "--process"]),
    (("", 2, 0), {}, ["--processes=2", "--process=0", "--coordinator"]),
    (("", None, 1), STEP, ["--process=1", "--coordinator"]),
    (("h:1", 2), JAX, ["--coordinator=h:1", "--processes=2", "--process"]),
    (("h:1", 2, 2), {}, ["--process=2", "--processes=2"]),
    (("h:1", 0, 0), {}, ["--process=0", "--processes=0"]),
    (("h", 2, 0), {}, ["h", "HOST:PORT"]),
    (("h:99999", 2, 0), {}, ["h:99999", "HOST:PORT"]),
    ((), JAX | {"JAX_PROCESS_ID": "2b"}, ["JAX_PROCESS_ID", "2b"]),
    (
      (),
      {"JAX_NUM_PROCESSES": "2"},
      ["JAX_NUM_PROCESSES", 2, "JAX_COORDINATOR_ADDRESS"],
    ),
    (
      (),
      {"JAX_COORDINATOR_ADDRESS": "h:1"},
      ["JAX_COORDINATOR_ADDRESS", "h:1", "JAX_NUM_PROCESSES"],
    ),
  ],
)
def test_what_is_missing_or_contradicts_is_told(flags, env, named):
  with error_names(ValueError, *named):
    clusters.find(*flags, env=env)


def test_train_refuses_before_it_reads_anything(capsys):
  flags = ["--config=nowhere", "--workdir=w", "--coordinator=h:1"]
  assert command.main(["train", *flags]) == 2
  check_names(capsys.readouterr().err, "--coordinator=h:1", "--processes")
