# shellcheck shell=bash
# Sourced by the launch scripts: makes and fills .venv in the repository root.
# After `ensure_venv EXTRAS`, $python runs in it.

# XLA on CPU takes and returns its scratch memory at every step: huge pages save
# most of the page faults (/usr/bin/time -v counts them).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

find_python() {
  local name
  for name in ${PYTHON:-python3 python3.12 python3.13 python3.11 python3.14}; do
    if command -v "$name" >/dev/null &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$name"
      return
    fi
  done
  echo "error: no Python >= 3.11 on the PATH" \
    "(python3 is: $(python3 --version 2>&1 || true))." >&2
  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or" \
    "name it: PYTHON=/path/to/python3.12 bash $0" >&2
  return 1
}

# Shows pip's progress as one line on a terminal; everything goes to the log.
# Leaves pip's exit status to the caller (pipefail).
pip_install() {
  local log=.venv/install.log
  "$python" -m pip install --progress-bar off --disable-pip-version-check \
    -c launch/constraints.txt "$@" 2>&1 | tee -a "$log" |
    awk -v tty="$([ -t 1 ] && echo 1 || echo 0)" '
      /^ *Downloading|^ *Using cached/ {
        n++
        if (tty) printf "\r  downloaded %d packages ", n
        else if (n % 20 == 0) printf "  downloaded %d packages so far\n", n
        fflush()
      }
      /^Installing collected/ && n > 3 {
        printf "%s  downloaded %d packages, unpacking\n", tty ? "\r" : "", n
        fflush()
      }' || {
    echo "error: pip failed; the end of $log:" >&2
    tail -n 15 "$log" >&2
    return 1
  }
}

ensure_venv() {
  local extras=$1 base want stamp
  if ! .venv/bin/python -c '' 2>/dev/null; then
    base=$(find_python)
    echo "making .venv with $("$base" --version)"
    # A venv that no longer starts (moved, python upgraded) is made afresh.
    "$base" -m venv --clear .venv || {
      echo "error: $base cannot make a venv; on Debian or Ubuntu:" \
        "apt install python3-venv" >&2
      return 1
    }
  fi
  python=$PWD/.venv/bin/python
  stamp=.venv/.installed-$extras
  want=$(cat setup.py launch/constraints.txt | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want $PWD" ]; then
    echo "using .venv (already has what setup.py [$extras] needs)"
    return
  fi
  echo "installing magvit_jax[$extras] into .venv with the versions of" \
    "launch/constraints.txt (a few minutes the first time)"
  : >.venv/install.log
  # Built with the pinned setuptools of the venv, not with a fresh download.
  pip_install setuptools wheel
  pip_install --no-build-isolation -e ".[$extras]"
  echo "$want $PWD" >"$stamp"
}
