# shellcheck shell=bash
# Sourced by the launch scripts: errors, dry runs, quoting, and the loop that
# starts a run again until it is done. `train` ends with 0 when the run is
# done, 2 after a user's error, 128 + signal when it was stopped and saved, and
# otherwise because something broke; the last two are worth another start.

dry_run=${dry_run:-false}
QUICK_SECONDS=${QUICK_SECONDS:-120} # an end sooner than this is a quick failure
MAX_QUICK=${MAX_QUICK:-5}           # of these in a row, then the loop gives up
PAUSE_SECONDS=${PAUSE_SECONDS:-10}  # before another start

# A user's error, in one line.
die() {
  echo "error: $*" >&2
  exit 2
}

say() {
  echo "$(basename "$0"): $*" >&2
}

# The header of the script that runs: its comment without the #.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# quote ARG...: one line that bash reads back as these arguments.
quote() {
  local arg line=
  for arg in "$@"; do
    [[ $arg =~ ^[A-Za-z0-9_./:=,+@%-]+$ ]] || arg=${arg@Q}
    line+="$arg "
  done
  echo "${line% }"
}

# run CMD...: runs it, or only shows it in a dry run.
run() {
  if $dry_run; then
    quote "$@"
  else
    "$@"
  fi
}

# need TOOL CURE: stops where a program is missing; a dry run needs none.
need() {
  $dry_run || command -v "$1" >/dev/null ||
    die "$1 is not on the PATH; $2"
}

# given VALUE FLAG: stops where a flag that is needed was not given.
given() {
  [ -n "$1" ] || die "$2 is missing; see: bash $0 --help"
}

# workdir_of FLAG...: the --workdir among the flags of train.
workdir_of() {
  local found=
  while [ $# -gt 0 ]; do
    case $1 in
      --workdir=*) found=${1#--workdir=} ;;
      --workdir) found=${2-} ;;
    esac
    shift
  done
  [ -n "$found" ] || die "the flags of train have no --workdir=DIR"
  echo "$found"
}

# remote_workdir_of FLAG...: as above, and it must outlive the machine.
remote_workdir_of() {
  local workdir
  workdir=$(workdir_of "$@") || exit $?
  case $workdir in
    gs://*) echo "$workdir" ;;
    *) die "--workdir=$workdir: what is preempted takes its disk along, and" \
      "all workers write into one folder; give gs://BUCKET/FOLDER" ;;
  esac
}

# is_done WORKDIR: whether the run there is whole.
is_done() {
  case $1 in
    gs://*) gcloud storage ls "$1/DONE" >/dev/null 2>&1 ;;
    *) [ -e "$1/DONE" ] ;;
  esac
}

# with_signals CMD...: runs it in a process group of its own and passes signals
# on once each, so that ctrl-C and a scheduler's SIGTERM both let it save before
# it leaves. Leaves the signal in $stopped_by.
with_signals() {
  local child='' code=0
  stopped_by=
  trap 'stopped_by=INT; kill -INT $child 2>/dev/null || true' INT
  trap 'stopped_by=TERM; kill -TERM $child 2>/dev/null || true' TERM HUP
  set -m
  "$@" &
  child=$!
  set +m
  # One that came before the child was known.
  [ -z "$stopped_by" ] || kill "-$stopped_by" "$child" 2>/dev/null || true
  while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
  wait "$child" || code=$?
  trap - INT TERM HUP
  return "$code"
}

# until_done WORKDIR CMD...: starts CMD until the run is done. Returns 0 then;
# 2 after a user's error, which another start would only repeat; the code of
# CMD where a signal stopped this loop, or after MAX_QUICK quick failures.
until_done() {
  local workdir=$1 code began quick=0
  shift
  while ! is_done "$workdir"; do
    began=$SECONDS code=0
    with_signals "$@" || code=$?
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then return "$code"; fi
    if [ -n "$stopped_by" ]; then
      say "stopped by SIG$stopped_by; the same command goes on"
      return "$code"
    fi
    # A stop that saved is no failure: somebody wants the machine for a while.
    if [ "$code" -eq 143 ] || [ "$code" -eq 130 ] ||
      [ $((SECONDS - began)) -ge "$QUICK_SECONDS" ]; then
      quick=0
    else
      quick=$((quick + 1))
    fi
    if [ "$quick" -ge "$MAX_QUICK" ]; then
      say "ended with code $code, $quick times within $QUICK_SECONDS s; giving up"
      return "$code"
    fi
    say "ended with code $code; starting again in $PAUSE_SECONDS s"
    sleep "$PAUSE_SECONDS"
  done
  say "$workdir is done"
}

# queue_again WORKDIR CODE MAX: at the end of a SLURM job, queues it again
# unless it is done, was cancelled, met a user's error, or crashes at once; and
# leaves with CODE.
queue_again() {
  local restarts=${SLURM_RESTART_COUNT:-0}
  if [ "$2" -eq 0 ] || [ "$2" -eq 2 ] || is_done "$1"; then exit "$2"; fi
  if scontrol show job "$SLURM_JOB_ID" | grep -q JobState=CANCELLED; then
    exit "$2"
  fi
  if [ "$2" -lt 128 ] && [ "$SECONDS" -lt "$QUICK_SECONDS" ] &&
    [ "$restarts" -ge "$MAX_QUICK" ]; then
    say "crashed with code $2 within $QUICK_SECONDS s again; giving up"
  elif [ "$restarts" -ge "$3" ]; then
    say "ended with code $2 after $restarts restarts; giving up"
  else
    say "ended with code $2; queued again"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$2"
}
