#!/usr/bin/env bash
# Trains on a TPU that is waited for in Google's queue, and asks for another
# whenever it is taken away, until the run is done:
#   bash launch/queued_resource.sh train  NAME --zone=Z --type=TYPE [TIER] \
#     [--valid-until-duration=6h] [--project=P] -- FLAGS OF TRAIN
#   bash launch/queued_resource.sh create NAME --zone=Z --type=TYPE [TIER] …
#   bash launch/queued_resource.sh wait   NAME --zone=Z      until it is ACTIVE
#   bash launch/queued_resource.sh run    NAME --zone=Z -- FLAGS OF TRAIN
#   bash launch/queued_resource.sh delete NAME --zone=Z
# TIER is --spot, --best-effort (alpha, older) or nothing. For example:
#   bash launch/queued_resource.sh train ucf --zone=us-west4-a --spot \
#     --type=v5litepod-16 -- --config=tokenizer/ucf101:B \
#     --workdir=gs://bucket/ucf --config.data.root=gs://bucket/ucf101
# `train` is all the others in a loop and stays in the foreground; stopped, it
# leaves the TPU running, and the same command goes on. In the end it deletes
# the TPU. --dry-run shows the commands of one turn and runs none. Logs and
# status: launch/tpu_vm.sh, with the same NAME and --zone.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

POLL_SECONDS=${POLL_SECONDS:-60}

parse() {
  verb=${1-} zone='' project='' type='' version='' tier=() until=()
  case $verb in
    --help | -h) usage && exit 0 ;;
    train | create | wait | run | delete) ;;
    *) die "unknown command '$verb'; it is train, create, wait, run or" \
      "delete, and --help shows an example" ;;
  esac
  name=${2-}
  case $name in
    '' | -*) die "give a name for the TPU behind $verb" ;;
  esac
  shift 2
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
      --zone=*) zone=${1#*=} ;;
      --project=*) project=${1#*=} ;;
      --type=*) type=${1#*=} ;;
      --version=*) version=${1#*=} ;;
      --spot | --best-effort) tier=("$1") ;;
      --valid-until-duration=*) until=("$1") ;;
      --dry-run) dry_run=true ;;
      *) die "unknown argument $1; see: bash $0 --help" ;;
    esac
    shift
  done
  flags=("${@:2}")
  given "$zone" --zone=ZONE
  where=("--zone=$zone" ${project:+"--project=$project"})
}

queue() {
  # --best-effort is known to the alpha commands alone.
  local track=()
  [ "${tier[*]-}" != --best-effort ] || track=(alpha)
  run gcloud ${track[@]+"${track[@]}"} compute tpus queued-resources "$@"
}

tpu_vm() {
  local how=()
  ! $dry_run || how=(--dry-run)
  bash "$root/launch/tpu_vm.sh" "$1" "$name" "${where[@]}" \
    ${how[@]+"${how[@]}"} "${@:2}"
}

create() {
  given "$type" --type=TYPE
  [ -n "$version" ] || version=$(bash "$root/launch/tpu_vm.sh" runtime "$type")
  queue create "$name" "--node-id=$name" "${where[@]}" \
    "--accelerator-type=$type" "--runtime-version=$version" \
    ${tier[@]+"${tier[@]}"} ${until[@]+"${until[@]}"}
}

delete() {
  queue delete "$name" "${where[@]}" --force --quiet
}

# One word, such as ACTIVE or SUSPENDED; NONE where there is no request.
state() {
  local found
  found=$(gcloud compute tpus queued-resources describe "$name" \
    "${where[@]}" '--format=value(state.state)' 2>/dev/null) || found=
  echo "${found:-NONE}"
}

wait_until_active() {
  local now
  if $dry_run; then
    echo "# until the state is ACTIVE:"
    quote gcloud compute tpus queued-resources describe "$name" \
      "${where[@]}" '--format=value(state.state)'
    return
  fi
  while now=$(state) && [ "$now" != ACTIVE ]; do
    case $now in
      NONE | FAILED | SUSPEND* | DELETING) say "$name is $now" && return 1 ;;
    esac
    say "$name is $now; waiting"
    sleep "$POLL_SECONDS"
  done
}

start() {
  remote_workdir_of ${flags[@]+"${flags[@]}"} >/dev/null
  tpu_vm copy
  tpu_vm run -- "${flags[@]}"
}

# The code with which a worker's loop ended for good; nothing while it goes on.
ended() {
  tpu_vm status 2>/dev/null | sed -n 's/^ended with code //p'
}

# Until the run is done, or has ended by itself, or the TPU is gone (code 75).
watch() {
  local code
  while [ "$(state)" = ACTIVE ]; do
    if is_done "$workdir"; then return 0; fi
    code=$(ended) || code=
    sleep "$POLL_SECONDS"
    # A signal may have been the first word of a preemption.
    if [ -n "$code" ] && { [ "$code" -lt 128 ] || [ "$(state)" = ACTIVE ]; }; then
      return "$code"
    fi
  done
  return 75
}

# One TPU, from the request to its end; the code is that of `watch`.
turn() {
  local code
  case $(state) in
    NONE) create ;;
    FAILED | SUSPEND*) delete && create ;;
  esac
  wait_until_active || return 75
  tpu_vm status 2>/dev/null | grep -qx running || start || return 75
  code=0
  watch || code=$?
  return "$code"
}

train() {
  local code=0
  workdir=$(remote_workdir_of ${flags[@]+"${flags[@]}"})
  given "$type" --type=TYPE
  if $dry_run; then
    echo "# until $workdir/DONE exists; if the TPU is taken away, from here:"
    create
    wait_until_active
    start
    echo "# in the end:"
    delete
    return
  fi
  until is_done "$workdir"; do
    code=0
    turn || code=$?
    case $code in
      0) break ;;
      75) say "$name is gone; asking for another in $POLL_SECONDS s" ;;
      *) say "the run ended with code $code; the TPU is left as it is: look" \
        "at it with bash launch/tpu_vm.sh logs $name ${where[*]}" &&
        return "$code" ;;
    esac
    sleep "$POLL_SECONDS"
  done
  say "$workdir is done"
  [ "$(state)" = NONE ] || delete
}

parse "$@"
need gcloud "install the Google Cloud SDK"
case $verb in
  train) train ;;
  create) create ;;
  wait) wait_until_active ;;
  run) start ;;
  delete) delete ;;
esac
