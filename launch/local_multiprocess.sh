#!/usr/bin/env bash
# Trains with several processes on this machine, each with its own CPU devices,
# as the hosts of a pod do, and starts all of them again until the run is done:
#   bash launch/local_multiprocess.sh [--processes=2] [--devices=1] [--dry-run]
#     -- --config=tokenizer/clips --workdir=runs/two
# A signal to this script, or SIGTERM to any of the processes, lets all of them
# save at one step; the script then ends, and after the latter goes on. What
# fails in one process ends them all. A user's error (code 2) ends the script,
# five failures within two minutes each do, too (QUICK_SECONDS, MAX_QUICK,
# PAUSE_SECONDS). PYTHON names the interpreter (default: .venv/bin/python).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

processes=2
devices=1
GRACE_SECONDS=${GRACE_SECONDS:-15} # for the others, after one has failed
SAVE_SECONDS=${SAVE_SECONDS:-300}  # for the others, after one has saved
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --dry-run) dry_run=true ;;
    --processes=*) processes=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --help | -h) usage && exit 0 ;;
    *) die "unknown argument $1; flags of train stand behind --" ;;
  esac
  shift
done
[ "${1-}" = -- ] || die "give the flags of train behind --; see: bash $0 --help"
shift
[[ $processes =~ ^[1-9][0-9]*$ ]] ||
  die "--processes=$processes; it must be a whole number from 1 on"
[[ $devices =~ ^[1-9][0-9]*$ ]] ||
  die "--devices=$devices; it must be a whole number from 1 on"
workdir=$(workdir_of "$@")
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=${PYTHON:-python3}

# command_of PORT I FLAG...: the command line of one process, in $line.
command_of() {
  line=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices"
    "$python" -m magvit_jax train "${@:3}")
  [ "$processes" -eq 1 ] ||
    line+=("--coordinator=127.0.0.1:$1" "--processes=$processes" "--process=$2")
}

free_port() {
  "$python" -c 'import socket
with socket.socket() as s:
  s.bind(("127.0.0.1", 0))
  print(s.getsockname()[1])'
}

# The first signal lets all save, the second does not.
# shellcheck disable=SC2317  # a trap calls it
pass() {
  kill "-$signal" "${pids[@]}" 2>/dev/null || true
  signal=KILL
}

# attempt FLAG...: starts all processes and waits until all have ended. Returns
# 2 if one of them did, else the first code that is not 0.
# shellcheck disable=SC2317  # until_done calls it
attempt() {
  local port code=0 one patience until=0 i
  local -a alive
  pids=() signal=TERM
  trap pass INT TERM
  port=$(free_port)
  for ((i = 0; i < processes; i++)); do
    command_of "$port" "$i" "$@"
    "${line[@]}" &
    pids+=($!)
  done
  alive=("${pids[@]}")
  while [ ${#alive[@]} -gt 0 ]; do
    sleep 0.3 || true
    for i in "${!alive[@]}"; do
      ! kill -0 "${alive[i]}" 2>/dev/null || continue
      one=0
      wait "${alive[i]}" || one=$?
      unset "alive[i]"
      [ "$one" -ne 0 ] || continue
      if [ "$code" -eq 0 ] || [ "$one" -eq 2 ]; then code=$one; fi
      patience=$GRACE_SECONDS
      [ "$one" -ne 143 ] || patience=$SAVE_SECONDS
      [ "$until" -ne 0 ] || until=$((SECONDS + patience))
    done
    if [ "$until" -ne 0 ] && [ "$SECONDS" -ge "$until" ] &&
      [ ${#alive[@]} -gt 0 ]; then
      say "ending the ${#alive[@]} that are left"
      kill -KILL "${alive[@]}" 2>/dev/null || true
    fi
  done
  return "$code"
}

if $dry_run; then
  echo "# until $workdir/DONE exists, or one ends with code 2, all at once:"
  for ((i = 0; i < processes; i++)); do
    command_of PORT "$i" "$@"
    quote "${line[@]}"
  done
  exit
fi
until_done "$workdir" attempt "$@"
