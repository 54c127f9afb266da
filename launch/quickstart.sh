#!/usr/bin/env bash
# Trains a causal video tokenizer, evaluates it on held-out video and writes a
# report:
#   bash launch/quickstart.sh                 the three bundled clips
#   bash launch/quickstart.sh DIR             your own videos (classes = folders)
#   bash launch/quickstart.sh [DIR] --config.steps=500     any flag of `train`
# A second run reuses .venv and goes on where the first one stopped.
set -euo pipefail
name=quickstart
flags=()
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  data=$(cd "$1" 2>/dev/null && pwd) || {
    echo "error: $1 is not a folder; give a folder of videos or nothing" >&2
    exit 2
  }
  name=quickstart-$(basename "$data")
  flags+=("--config.data.root=$data")
  shift
fi
flags+=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
source launch/venv.sh
ensure_venv quickstart
workdir=runs/$name

# Runs a verb in a process group of its own and passes signals on once each, so
# that ctrl-C and a scheduler's SIGTERM both let it save before it leaves.
set -m
verb() {
  local child code=0
  "$python" -m magvit_jax "$@" &
  child=$!
  trap 'kill -INT "$child" 2>/dev/null || true' INT
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM HUP
  while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
  wait "$child" || code=$?
  trap - INT TERM HUP
  return "$code"
}

verb train --config=configs/tokenizer/clips.py "--workdir=$workdir" \
  ${flags[@]+"${flags[@]}"} || exit $?
if [ ! "$workdir/report.html" -nt "$workdir/DONE" ]; then
  verb evaluate "--workdir=$workdir" || exit $?
  verb report "--workdir=$workdir" || exit $?
fi
echo "report: $PWD/$workdir/report.html"
