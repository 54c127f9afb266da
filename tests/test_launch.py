"""The launch scripts, with stand-ins for the programs that they call."""

import os
import pathlib
import shlex
import signal
import subprocess
import time

import pytest

from helpers.errors import check_names
from helpers.launch_scripts import Bench

FLAGS = ("--config=clips", "--workdir=gs://b/run", "--config.data.root=/a b")
ODD = "--config.data.root=/a b"
TPU = ("dev", "--zone=z")
XPK = ("dev", "--cluster=c", "--zone=z", "--tpu-type=v6e-16", "--image=i")
# Ends with the next code of $TMP/codes; 0 leaves DONE.
PYTHON = """
read -r code <"$TMP/codes" && sed -i 1d "$TMP/codes"
[ "$code" != 0 ] || { mkdir -p "$TMP/run" && touch "$TMP/run/DONE"; }
exit "$code"
"""


@pytest.fixture
def bench(tmp_path):
  return Bench(tmp_path)


@pytest.fixture
def local(bench):
  """A bench whose python ends with the codes of a file, and flags for it."""
  bench.env["PYTHON"] = bench.program("python", PYTHON)
  bench.flags = ("--config=clips", f"--workdir={bench.folder}/run", ODD)

  def run(codes: list[int], **env: str) -> int:
    (bench.folder / "codes").write_text("".join(f"{c}\n" for c in codes))
    return bench.run("until_done.sh", "--", *bench.flags, **env)[0]

  bench.until_done = run
  return bench


def test_tpu_vm_dry_runs_name_all_workers_and_keep_odd_arguments(bench):
  bench.program("gcloud")
  create, *_ = bench.dry(
    "tpu_vm.sh", "create", *TPU, "--type=v5litepod-16", "--spot", "--dry-run"
  )
  vm = ["gcloud", "compute", "tpus", "tpu-vm"]
  assert create == [
    *(*vm, "create", "dev", "--zone=z", "--accelerator-type=v5litepod-16"),
    *("--version=v2-alpha-tpuv5-lite", "--spot"),
  ]
  run, *_ = bench.dry("tpu_vm.sh", "run", *TPU, "--dry-run", "--", *FLAGS)
  *start, command = run
  assert start == [*vm, "ssh", "dev", "--zone=z", "--worker=all"]
  words = shlex.split(command.removeprefix("--command="))
  assert words == [
    *("cd", "magvit_jax", "&&", "bash", "launch/on_worker.sh", "start"),
    *("--coordinator=auto", *FLAGS),
  ]
  scp, unpack, install = bench.dry("tpu_vm.sh", "copy", *TPU, "--dry-run")
  assert scp[4:] == ["scp", *TPU, "/tmp/magvit_jax.tgz", "dev:", "--worker=all"]
  for line in (unpack, install):
    assert line[4:] == ["ssh", *TPU, "--worker=all", line[-1]]
  assert install[-1].endswith("bash launch/install.sh tpu,gcs")
  (delete,) = bench.dry("tpu_vm.sh", "delete", *TPU, "--dry-run")
  assert delete[4:] == ["delete", *TPU, "--quiet"]


@pytest.mark.parametrize(
  "type, image",
  [
    ("v4-8", "tpu-ubuntu2204-base"),
    ("v5p-8", "v2-alpha-tpuv5"),
    ("v6e-8", "v2-alpha-tpuv6e"),
    ("tpu7x-8", "v2-alpha-tpu7-ubuntu2404"),
  ],
)
def test_each_type_of_tpu_has_its_image(bench, type, image):
  assert bench.run("tpu_vm.sh", "runtime", type)[1].strip() == image


@pytest.mark.parametrize(
  "script, args, named",
  [
    ("tpu_vm.sh", ["fly", "dev"], ["fly"]),
    ("tpu_vm.sh", ["create", *TPU], ["--type=TYPE"]),
    ("tpu_vm.sh", ["create", "dev", "--type=v6e-8"], ["--zone=ZONE"]),
    ("tpu_vm.sh", ["create", *TPU, "--type=v9-8"], ["v9-8"]),
    ("tpu_vm.sh", ["run", *TPU, "--", "--config=a"], ["--workdir=DIR"]),
    (
      "tpu_vm.sh",
      ["run", *TPU, "--", "--workdir=runs/a"],
      ["runs/a", "gs://BUCKET"],
    ),
    ("queued_resource.sh", ["train", "--zone=z"], ["train"]),
    ("queued_resource.sh", ["wait", *TPU, "--spt"], ["--spt"]),
    ("xpk.sh", ["logs", *XPK, "--tpu=v6e-16"], ["--tpu"]),
    ("xpk.sh", ["create", *XPK, "--", "--workdir=w"], ["w", "gs://BUCKET"]),
    ("slurm.sh", ["--nodes=2", "--workdir=w"], ["--"]),
    ("slurm.sh", ["--per=host", "--", "--workdir=w"], ["host", "gpu", "node"]),
    ("slurm.sh", ["--nodes=0", "--", "--workdir=w"], ["--nodes=0"]),
    ("until_done.sh", ["--workdir=w"], ["--"]),
  ],
)
def test_wrong_arguments_end_with_2_and_one_line(bench, script, args, named):
  for name in ("gcloud", "xpk", "sbatch"):
    bench.program(name)
  code, _, err = bench.run(script, *args)
  assert code == 2
  assert err.startswith("error: ")
  check_names(err, *named)
  assert not bench.calls()


@pytest.mark.parametrize(
  "script, args, program",
  [
    ("tpu_vm.sh", ("delete", *TPU), "gcloud"),
    ("queued_resource.sh", ("delete", *TPU), "gcloud"),
    ("xpk.sh", ("delete", *XPK), "xpk"),
    ("slurm.sh", ("--", "--workdir=w"), "sbatch"),
  ],
)
def test_a_missing_program_is_named(bench, script, args, program):
  code, _, err = bench.run(script, *args)
  assert code == 2
  check_names(err, program, "PATH")


def test_copy_packs_what_git_does_not_ignore(bench):
  (bench.folder / ".gitignore").write_text("runs/\nbin/\n")
  (bench.folder / "runs").mkdir()
  (bench.folder / "runs" / "big").write_text("x")
  subprocess.run(["git", "init", "-q"], cwd=bench.folder, check=True)
  bench.program(
    "gcloud",
    f'[ "$4" != scp ] || tar -tzf "$7" >"{bench.folder}/runs/packed"\n',
  )
  assert bench.run("tpu_vm.sh", "copy", *TPU)[0] == 0
  packed = (bench.folder / "runs" / "packed").read_text().splitlines()
  assert "launch/install.sh" in packed and ".gitignore" in packed
  assert not [name for name in packed if name.startswith(("runs", "bin"))]
  assert [call[4] for call in bench.calls("gcloud")] == ["scp", "ssh", "ssh"]


def test_on_a_worker_the_run_starts_tells_and_stops(local):
  (local.folder / "codes").write_text("")
  local.program(
    "python",
    'trap "exit 143" TERM\ntouch "$TMP/up"\nwhile :; do sleep 0.05; done\n',
  )
  worker = ("on_worker.sh",)
  assert local.run(*worker, "status")[1] == "not running\n"
  assert local.run(*worker, "start", *local.flags)[0] == 0
  _wait_for(local.folder / "up")
  assert local.run(*worker, "status")[1] == "running\n"
  code, _, err = local.run(*worker, "start", *local.flags)
  assert code == 2 and err.startswith("error: ")
  assert local.run(*worker, "stop")[0] == 0
  _wait_for(local.folder / "run.code")
  _until(lambda: local.run(*worker, "status")[1] != "running\n")
  assert local.run(*worker, "status")[1] == "ended with code 143\n"
  (call,) = local.calls("python")
  assert call[1:] == ["-m", "magvit_jax", "train", *local.flags]


@pytest.mark.parametrize(
  "codes, starts, code",
  [
    ([143, 1, 139, 0, 0], 4, 0),  # preempted, crashed twice, done
    ([2, 0], 1, 2),  # a user's error is not repeated
    ([0, 0], 1, 0),
    ([1] * 9, 3, 1),  # quick failures come to an end
    ([1, 1, 143, 1, 1, 143, 1, 0], 8, 0),  # a stop that saved is none
  ],
)
def test_the_loop_starts_again_until_done(local, codes, starts, code):
  assert local.until_done(codes, MAX_QUICK="3") == code
  assert len(local.calls("python")) == starts
  for call in local.calls("python"):
    assert call[1:] == ["-m", "magvit_jax", "train", *local.flags]


def test_slow_failures_are_no_quick_ones(local):
  codes = [1] * 4 + [0]
  assert local.until_done(codes, MAX_QUICK="2", QUICK_SECONDS="0") == 0


def test_what_is_done_is_not_started(local):
  (local.folder / "run").mkdir()
  (local.folder / "run" / "DONE").write_text("step 3\n")
  assert local.until_done([1]) == 0
  assert not local.calls("python")


def test_done_is_looked_for_in_the_bucket(local):
  local.program("gcloud", '[ -e "$TMP/run/DONE" ]\n')
  local.flags = FLAGS
  assert local.until_done([143, 0, 1]) == 0
  assert len(local.calls("python")) == 2
  looks = local.calls("gcloud")
  assert set(map(tuple, looks)) == {
    ("gcloud", "storage", "ls", "gs://b/run/DONE")
  }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_python_itself_once_and_end_the_loop(local, number):
  name = number.name[3:]
  local.program(
    "python",
    f'trap "echo {name} >>\\"$TMP/got\\"; exit {128 + number}" {name}\n'
    'echo "$PPID" >"$TMP/parent"; touch "$TMP/up"\n'
    "while :; do sleep 0.05; done\n",
  )
  # A test run in the background ignores ctrl-C, and its children would, too.
  before = signal.signal(number, signal.SIG_DFL)
  child = local.start("until_done.sh", "--", *local.flags)
  signal.signal(number, before)
  _wait_for(local.folder / "up")
  os.kill(child.pid, number)
  _, err = child.communicate(timeout=30)
  assert child.returncode == 128 + number, err
  assert (local.folder / "got").read_text() == f"{name}\n"
  # No shell stands between that would keep a signal for itself.
  assert (local.folder / "parent").read_text().strip() == str(child.pid)
  assert len(local.calls("python")) == 1


def test_queued_resource_dry_run(bench):
  bench.program("gcloud")
  lines = bench.dry(
    *("queued_resource.sh", "train", *TPU, "--type=v6e-8", "--best-effort"),
    *("--valid-until-duration=6h", "--dry-run", "--", *FLAGS),
  )
  create, wait, *rest, delete = lines
  assert create == [
    *("gcloud", "alpha", "compute", "tpus", "queued-resources", "create"),
    *("dev", "--node-id=dev", "--zone=z", "--accelerator-type=v6e-8"),
    *("--runtime-version=v2-alpha-tpuv6e", "--best-effort"),
    "--valid-until-duration=6h",
  ]
  assert wait[4:6] == ["describe", "dev"]
  assert shlex.split(rest[-1][-1])[-3:] == list(FLAGS)
  assert delete[5:] == ["delete", *TPU, "--force", "--quiet"]


# The first TPU is taken away while it trains; the second one comes to the end.
QUEUE = """
case "$*" in
  *" create "*)
    rm -f "$TMP/started"
    if [ -e "$TMP/first" ]; then
      echo "WAITING_FOR_RESOURCES ACTIVE" >"$TMP/states"; touch "$TMP/second"
    else
      echo "PROVISIONING ACTIVE ACTIVE SUSPENDED" >"$TMP/states"
      touch "$TMP/first"
    fi ;;
  *" delete "*) rm "$TMP/states" ;;
  *" describe "*)
    [ -e "$TMP/states" ] || exit 1
    read -r now rest <"$TMP/states"
    echo "$now"; [ -z "$rest" ] || echo "$rest" >"$TMP/states" ;;
  *"on_worker.sh start"*) touch "$TMP/started" ;;
  *"on_worker.sh status"*) [ ! -e "$TMP/started" ] || echo "$STATUS" ;;
  "storage ls"*) [ -e "$TMP/second" ] && [ -e "$TMP/started" ] ;;
esac
"""


def _queue(bench, status: str) -> tuple[int, list[str]]:
  """Exit code of `train`, and the actions that change something."""
  subprocess.run(["git", "init", "-q"], cwd=bench.folder, check=True)
  bench.program("gcloud", QUEUE)
  args = ("train", *TPU, "--type=v6e-8", "--spot", "--", *FLAGS)
  code, _, _ = bench.run("queued_resource.sh", *args, STATUS=status)
  text = [" ".join(call) for call in bench.calls("gcloud")]
  words = ("create", "delete", "scp", "start")
  return code, [w for line in text for w in words if f" {w} " in f"{line} "]


def test_what_is_taken_away_is_asked_for_again_until_done(bench):
  code, actions = _queue(bench, "running")
  assert code == 0
  once = ["create", "scp", "start"]
  assert actions == [*once, "delete", *once, "delete"]


def test_a_run_that_failed_by_itself_is_not_queued_again(bench):
  code, actions = _queue(bench, "ended with code 2")
  assert code == 2
  assert actions == ["create", "scp", "start"]


def test_xpk_dry_run_and_its_command(bench):
  bench.program("xpk")
  args = ("create", *XPK, "--num-slices=2", "--max-restarts=7")
  (line,) = bench.dry("xpk.sh", *args, "--dry-run", "--", *FLAGS)
  assert line[:3] == ["xpk", "workload", "create"]
  for wanted in (
    *("--workload=dev", "--cluster=c", "--tpu-type=v6e-16", "--num-slices=2"),
    *("--max-restarts=7", "--docker-image=i", "--restart-on-exit-codes=1"),
    "--termination-grace-period-seconds=120",
  ):
    assert wanted in line
  command = line[-1].removeprefix("--command=")
  assert command.startswith("exec python3 -m magvit_jax train ")
  assert shlex.split(command)[5:] == list(FLAGS)
  assert bench.run("xpk.sh", *args, "--", *FLAGS)[0] == 0
  assert bench.calls() == [line]
  (bench.folder / "calls").unlink()
  first, second = bench.dry("xpk.sh", "logs", *XPK[:3], "--dry-run")
  assert first[:4] == ["gcloud", "container", "clusters", "get-credentials"]
  assert "--selector=jobset.sigs.k8s.io/jobset-name=dev" in second


def test_slurm_dry_run(bench):
  args = ("--nodes=2", "--gpus=4", "--time=1:00:00", "--comment=a b")
  code, out, _ = bench.run(
    "slurm.sh", *args, "--dry-run", "--", *FLAGS, PYTHON="/py"
  )
  assert code == 0
  options = [
    shlex.split(line.removeprefix("#SBATCH "))[0]
    for line in out.splitlines()
    if line.startswith("#SBATCH ")
  ]
  for wanted in (
    *("--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=4", "--requeue"),
    *("--signal=TERM@120", "--time=1:00:00", "--comment=a b"),
  ):
    assert wanted in options
  assert "JAX_LOCAL_DEVICE_IDS" not in out
  (srun,) = [line for line in out.splitlines() if line.startswith("srun ")]
  assert shlex.split(srun)[2:9] == ["/py", "-m", "magvit_jax", "train", *FLAGS]
  out = bench.run("slurm.sh", *args, "--per=node", "--dry-run", "--", *FLAGS)[1]
  assert "#SBATCH --ntasks-per-node=1\n" in out
  assert "export PYTHONUNBUFFERED=1 JAX_LOCAL_DEVICE_IDS=0,1,2,3\n" in out


@pytest.mark.parametrize(
  "ends, restarts, state, again",
  [
    (143, 0, "RUNNING", True),  # the time limit, or preempted
    (1, 0, "RUNNING", True),
    (1, 5, "RUNNING", False),  # crashes at once, again and again
    (143, 100, "RUNNING", False),
    (143, 0, "CANCELLED", False),  # the user wants it to end
    (2, 0, "RUNNING", False),
    (0, 0, "RUNNING", False),
  ],
)
def test_a_slurm_job_is_queued_again(local, ends, restarts, state, again):
  job = local.folder / "job"
  local.program("sbatch", f"cat >{job}\n")
  local.program("srun", 'shift; exec "$@"\n')
  local.program("scontrol", f"echo JobState={state}\n")
  assert local.run("slurm.sh", "--", *local.flags)[0] == 0
  (local.folder / "codes").write_text(f"{ends}\n")
  env = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
  out = subprocess.run(["bash", str(job)], env={**local.env, **env})
  assert out.returncode == ends
  assert (["scontrol", "requeue", "7"] in local.calls()) == again
  (call,) = local.calls("python")
  assert call[1:] == ["-m", "magvit_jax", "train", *local.flags]


def _wait_for(path: pathlib.Path) -> None:
  _until(path.exists)


def _until(true) -> None:
  """Waits for something, but not for ever."""
  for _ in range(1200):
    if true():
      return
    time.sleep(0.05)
  raise AssertionError("it did not happen within a minute")
