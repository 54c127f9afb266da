#!/usr/bin/env bash
# Trains a causal video tokenizer and then a masked transformer on its tokens,
# evaluates both on held-out video, predicts futures, samples by class and
# writes one report, runs/quickstart/report.html:
#   bash launch/quickstart.sh                 the three bundled clips
#   bash launch/quickstart.sh DIR             your own videos (classes = folders)
#   bash launch/quickstart.sh [DIR] --config.batch=4    any flag of `train`, for
#                                                       both
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
# shellcheck source=launch/common.sh
source launch/common.sh
# shellcheck source=launch/venv.sh
source launch/venv.sh
ensure_venv quickstart
runs=runs/$name

verb() {
  with_signals "$python" -m magvit_jax "$@"
}

# Trains and evaluates one stage, unless that is done.
stage() {
  local kind=$1 workdir=$runs/$1
  shift
  verb train "--config=configs/$kind/clips.py" "--workdir=$workdir" "$@" \
    ${flags[@]+"${flags[@]}"} || return $?
  if [ -z "$(find "$workdir" -name 'evaluation*.json' -newer "$workdir/DONE")" ]
  then
    verb evaluate "--workdir=$workdir" || return $?
  fi
}

stage tokenizer || exit $?
stage generator "--config.tokenizer.workdir=$runs/tokenizer" || exit $?
if [ ! "$runs/report.html" -nt "$runs/generator/DONE" ]; then
  verb report "--workdir=$runs/generator" "--out=$runs/report.html" || exit $?
fi
echo "report: $PWD/$runs/report.html"
