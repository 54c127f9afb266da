#!/usr/bin/env bash
# Trains on this machine and starts again until the run is done: after a crash,
# a lost process or a preemption that left the machine up. A user's error (code
# 2) and a signal to this script end it; five failures within two minutes each
# do, too (QUICK_SECONDS, MAX_QUICK, PAUSE_SECONDS).
#   bash launch/until_done.sh [--dry-run] [--code=FILE] -- FLAGS OF TRAIN
#   bash launch/until_done.sh -- --config=tokenizer/clips --workdir=gs://b/run
# PYTHON names the interpreter (default: .venv/bin/python, if it is there).
# --code=FILE: where the exit code is written in the end.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

code_file=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --dry-run) dry_run=true ;;
    --code=*) code_file=${1#--code=} ;;
    --help | -h) usage && exit 0 ;;
    *) die "unknown argument $1; flags of train stand behind --" ;;
  esac
  shift
done
[ "${1-}" = -- ] || die "give the flags of train behind --; see: bash $0 --help"
shift
workdir=$(workdir_of "$@")
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=${PYTHON:-python3}

# The process that the signals reach is python itself.
# shellcheck disable=SC2317  # until_done calls it
train() {
  exec "$python" -m magvit_jax train "$@"
}

if $dry_run; then
  echo "# until $workdir/DONE exists, or it ends with code 2:"
  quote "$python" -m magvit_jax train "$@"
  exit
fi
case $workdir in
  gs://*) need gcloud "it tells whether $workdir/DONE exists" ;;
esac
code=0
until_done "$workdir" train "$@" || code=$?
[ -z "$code_file" ] || echo "$code" >"$code_file"
exit "$code"
