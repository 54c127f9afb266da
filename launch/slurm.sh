#!/usr/bin/env bash
# Trains on GPU nodes of a SLURM cluster:
#   bash launch/slurm.sh [--dry-run] [--name=NAME] [--nodes=N] [--gpus=G] \
#     [--per=gpu|node] [--SBATCH-FLAG=VALUE …] -- FLAGS OF TRAIN
# For example, two nodes of eight GPUs for a day at a time:
#   bash launch/slurm.sh --nodes=2 --gpus=8 --time=24:00:00 --partition=gpu \
#     -- --config=tokenizer/ucf101:B --workdir=/shared/runs/ucf \
#     --config.data.root=/shared/ucf101
# One process runs per GPU (--per=gpu) or per node with all of its GPUs
# (--per=node). Two minutes before the time limit, and when it is preempted, the
# run saves and is queued again, until it is done; a crash is queued again, too,
# a user's error is not. --dry-run shows the file for sbatch and submits
# nothing. Other flags go to sbatch as they are. PYTHON names the interpreter,
# which all nodes see (default: .venv/bin/python).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

SAVE_SECONDS=120 # before the time limit
MAX_RESTARTS=100

name=magvit_jax nodes=1 gpus=1 per=gpu others=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --dry-run) dry_run=true ;;
    --name=*) name=${1#*=} ;;
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --per=*) per=${1#*=} ;;
    --*=* | --exclusive) others+=("$1") ;;
    *) die "unknown argument $1; see: bash $0 --help" ;;
  esac
  shift
done
[ "${1-}" = -- ] || die "give the flags of train behind --; see: bash $0 --help"
shift
[[ $nodes$gpus =~ ^[1-9][0-9]*$ ]] ||
  die "--nodes=$nodes and --gpus=$gpus must be whole numbers above 0"
case $per in
  gpu) tasks=$gpus devices='' ;;
  # JAX gives each process of a SLURM step one GPU, unless it is told which.
  node) tasks=1 devices=$(seq -s, 0 $((gpus - 1))) ;;
  *) die "--per=$per is not known; it is gpu or node" ;;
esac
workdir=$(workdir_of "$@")

# What sbatch reads.
batch() {
  local flag
  echo "#!/usr/bin/env bash"
  for flag in "--job-name=$name" "--nodes=$nodes" "--gpus-per-node=$gpus" \
    "--ntasks-per-node=$tasks" "--output=$name-%j.log" --open-mode=append \
    --requeue "--signal=TERM@$SAVE_SECONDS" ${others[@]+"${others[@]}"}; do
    echo "#SBATCH $(quote "$flag")"
  done
  cat <<END
set -euo pipefail
cd $(quote "$root")
source launch/common.sh
export PYTHONUNBUFFERED=1${devices:+ JAX_LOCAL_DEVICE_IDS=$devices}
# SLURM signals the processes of srun itself.
trap : TERM
code=0
srun --kill-on-bad-exit=1 $(quote "${PYTHON:-$root/.venv/bin/python}" \
  -m magvit_jax train "$@") || code=\$?
queue_again $(quote "$workdir") "\$code" $MAX_RESTARTS
END
}

if $dry_run; then
  batch "$@"
else
  need sbatch "run this on a login node of the cluster"
  batch "$@" | sbatch
fi
