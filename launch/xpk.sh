#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, through xpk:
#   bash launch/xpk.sh create NAME --cluster=C --zone=Z --tpu-type=TYPE \
#     --image=IMAGE [--num-slices=N] [--max-restarts=N] [--priority=P] \
#     [--project=P] -- FLAGS OF TRAIN
#   bash launch/xpk.sh status NAME --cluster=C --zone=Z
#   bash launch/xpk.sh logs   NAME --cluster=C --zone=Z
#   bash launch/xpk.sh delete NAME --cluster=C --zone=Z
# For example:
#   bash launch/xpk.sh create ucf --cluster=tpus --zone=us-west4-a \
#     --tpu-type=v5litepod-16 --num-slices=2 --image=gcr.io/me/magvit:1 -- \
#     --config=tokenizer/ucf101:B --workdir=gs://bucket/ucf \
#     --config.data.root=gs://bucket/ucf101
# IMAGE is one with `pip install '.[tpu,gcs]' -c launch/constraints.txt`.
# Kubernetes starts all slices again when a process crashes, is lost or is
# preempted, at most --max-restarts times, and not after a user's error.
# --dry-run shows the commands and runs none.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

GRACE_SECONDS=120 # between the signal and the kill, for the last checkpoint

parse() {
  verb=${1-} cluster='' zone='' project='' type='' image='' slices=1
  restarts=100 priority=medium
  case $verb in
    --help | -h) usage && exit 0 ;;
    create | status | logs | delete) ;;
    *) die "unknown command '$verb'; it is create, status, logs or delete," \
      "and --help shows an example" ;;
  esac
  name=${2-}
  case $name in
    '' | -*) die "give a name for the workload behind $verb" ;;
  esac
  shift 2
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
      --cluster=*) cluster=${1#*=} ;;
      --zone=*) zone=${1#*=} ;;
      --project=*) project=${1#*=} ;;
      --tpu-type=*) type=${1#*=} ;;
      --image=*) image=${1#*=} ;;
      --num-slices=*) slices=${1#*=} ;;
      --max-restarts=*) restarts=${1#*=} ;;
      --priority=*) priority=${1#*=} ;;
      --dry-run) dry_run=true ;;
      *) die "unknown argument $1; see: bash $0 --help" ;;
    esac
    shift
  done
  flags=("${@:2}")
  given "$cluster" --cluster=CLUSTER
  given "$zone" --zone=ZONE
  where=("--cluster=$cluster" "--zone=$zone" ${project:+"--project=$project"})
}

# `train` finds the other processes by what GKE puts into the environment.
create() {
  given "$type" --tpu-type=TYPE
  given "$image" --image=IMAGE
  remote_workdir_of ${flags[@]+"${flags[@]}"} >/dev/null
  # By itself xpk restarts after 42 and 127 to 255: signals, but not a crash.
  run xpk workload create "--workload=$name" "${where[@]}" \
    "--tpu-type=$type" "--num-slices=$slices" "--docker-image=$image" \
    "--priority=$priority" "--max-restarts=$restarts" \
    --restart-on-exit-codes=1 \
    "--termination-grace-period-seconds=$GRACE_SECONDS" \
    "--command=exec $(quote python3 -m magvit_jax train "${flags[@]}")"
}

logs() {
  run gcloud container clusters get-credentials "$cluster" \
    "--location=$zone" ${project:+"--project=$project"}
  run kubectl logs --follow --prefix --tail=100 --max-log-requests=256 \
    "--selector=jobset.sigs.k8s.io/jobset-name=$name"
}

parse "$@"
need xpk "pip install xpk"
case $verb in
  create) create ;;
  status) run xpk workload list "${where[@]}" "--filter-by-job=^$name\$" ;;
  logs) need kubectl "gcloud components install kubectl" && logs ;;
  delete) run xpk workload delete "--workload=$name" "${where[@]}" --force ;;
esac
