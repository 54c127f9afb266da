#!/usr/bin/env bash
# On one machine: a run in the background, which outlives the ssh session.
#   bash launch/on_worker.sh start FLAGS OF TRAIN     by until_done.sh
#   bash launch/on_worker.sh status                   running, or how it ended
#   bash launch/on_worker.sh stop                     saves and ends
#   bash launch/on_worker.sh logs                     follows the log
# tpu_vm.sh calls it. The log and the exit code lie beside launch/, in run.log
# and run.code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

is_running() {
  kill -0 "$(cat run.pid 2>/dev/null)" 2>/dev/null
}

start() {
  ! is_running || die "a run is going on here; stop it first"
  rm -f run.code
  PYTHONUNBUFFERED=1 setsid nohup bash launch/until_done.sh --code=run.code \
    -- "$@" >>run.log 2>&1 </dev/null &
  echo $! >run.pid
}

status() {
  if is_running; then
    echo running
  elif [ -e run.code ]; then
    echo "ended with code $(cat run.code)"
  else
    echo "not running"
  fi
}

case ${1-} in
  start) start "${@:2}" ;;
  status) status ;;
  stop)
    is_running || die "nothing runs here"
    kill -TERM "$(cat run.pid)"
    ;;
  logs) exec tail -n 100 -F run.log ;;
  *) die "unknown command '${1-}'; it is start, status, stop or logs" ;;
esac
