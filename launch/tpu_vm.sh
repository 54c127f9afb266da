#!/usr/bin/env bash
# Trains on a TPU VM or a pod of them, on all workers at once:
#   bash launch/tpu_vm.sh create NAME --zone=Z --type=TYPE [--spot] [--project=P]
#   bash launch/tpu_vm.sh copy   NAME --zone=Z      this checkout, and installs
#   bash launch/tpu_vm.sh run    NAME --zone=Z -- FLAGS OF TRAIN
#   bash launch/tpu_vm.sh logs   NAME --zone=Z [--worker=0]
#   bash launch/tpu_vm.sh status NAME --zone=Z      running, or how it ended
#   bash launch/tpu_vm.sh stop   NAME --zone=Z      saves and ends
#   bash launch/tpu_vm.sh delete NAME --zone=Z
# For example:
#   tpu="dev --zone=us-west4-a"
#   bash launch/tpu_vm.sh create $tpu --type=v5litepod-16 --spot
#   bash launch/tpu_vm.sh copy $tpu
#   bash launch/tpu_vm.sh run $tpu -- --config=tokenizer/ucf101:B \
#     --workdir=gs://bucket/ucf --config.data.root=gs://bucket/ucf101
# --dry-run shows the commands and runs none. --preemptible is the older --spot.
# --version=IMAGE takes another image than the one that belongs to --type.
# `run` starts until_done.sh on each worker, which restarts what crashed; for
# spot machines that are taken away see queued_resource.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

FOLDER=magvit_jax # in the home of each worker
EXTRAS=tpu,gcs

# runtime_of TYPE: the image with the driver of an accelerator.
runtime_of() {
  case $1 in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    tpu7x-*) echo v2-alpha-tpu7-ubuntu2404 ;;
    *) die "--type=$1: no image is known for it (v2, v3, v4, v5litepod, v5p," \
      "v6e, tpu7x, each with -SIZE); name one by --version=IMAGE" ;;
  esac
}

parse() {
  verb=${1-} zone='' project='' type='' version='' worker=0 tier=()
  case $verb in
    --help | -h) usage && exit 0 ;;
    create | copy | run | logs | status | stop | delete) ;;
    runtime) runtime_of "${2-}" && exit 0 ;;
    *) die "unknown command '$verb'; it is create, copy, run, logs, status," \
      "stop or delete, and --help shows an example" ;;
  esac
  name=${2-}
  case $name in
    '' | -*) die "give the name of the TPU behind $verb" ;;
  esac
  shift 2
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
      --zone=*) zone=${1#*=} ;;
      --project=*) project=${1#*=} ;;
      --type=*) type=${1#*=} ;;
      --version=*) version=${1#*=} ;;
      --worker=*) worker=${1#*=} ;;
      --spot | --preemptible) tier=("$1") ;;
      --dry-run) dry_run=true ;;
      *) die "unknown argument $1; see: bash $0 --help" ;;
    esac
    shift
  done
  flags=("${@:2}")
  given "$zone" --zone=ZONE
  where=("--zone=$zone" ${project:+"--project=$project"})
}

tpu() {
  local action=$1
  shift
  run gcloud compute tpus tpu-vm "$action" "$name" "${where[@]}" "$@"
}

# on WORKER ARG...: a command in the checkout, on one worker or on all.
on() {
  tpu ssh "--worker=$1" "--command=cd $FOLDER && $(quote "${@:2}")"
}

create() {
  given "$type" --type=TYPE
  [ -n "$version" ] || version=$(runtime_of "$type") || exit $?
  tpu create "--accelerator-type=$type" "--version=$version" \
    ${tier[@]+"${tier[@]}"}
}

# The files that git knows or would add: neither runs nor .venv.
pack() {
  git -C "$root" ls-files -z --cached --others --exclude-standard |
    tar -C "$root" --null --ignore-failed-read -T - -czf "$1"
}

copy() {
  local folder
  if $dry_run; then
    echo "# the files of $root that git does not ignore, as /tmp/$FOLDER.tgz"
    folder=/tmp
  else
    folder=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder as it is now
    trap "rm -rf '$folder'" EXIT
    pack "$folder/$FOLDER.tgz"
  fi
  tpu scp "$folder/$FOLDER.tgz" "$name:" --worker=all
  tpu ssh --worker=all "--command=mkdir -p $FOLDER &&\
 tar -xzf $FOLDER.tgz -C $FOLDER"
  on all bash launch/install.sh "$EXTRAS"
}

# JAX finds the other workers by itself.
start() {
  remote_workdir_of ${flags[@]+"${flags[@]}"} >/dev/null
  on all bash launch/on_worker.sh start --coordinator=auto "${flags[@]}"
}

parse "$@"
need gcloud "install the Google Cloud SDK"
case $verb in
  create) create ;;
  copy) copy ;;
  run) start ;;
  logs | status) on "$worker" bash launch/on_worker.sh "$verb" ;;
  stop) on all bash launch/on_worker.sh stop ;;
  delete) tpu delete --quiet ;;
esac
