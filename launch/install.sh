#!/usr/bin/env bash
# Installs the package into .venv with the versions of launch/constraints.txt:
#   bash launch/install.sh EXTRAS
#   bash launch/install.sh tpu,gcs
# Images of TPU VMs have a Python that is too old; one is fetched by uv then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
source launch/venv.sh
[ $# -eq 1 ] || {
  echo "error: give the extras, such as tpu,gcs" >&2
  exit 2
}
if ! find_python >/dev/null 2>&1; then
  echo "no Python >= 3.11 here; fetching 3.12 by uv"
  python3 -m pip install --quiet --user uv
  python3 -m uv python install --quiet 3.12
  PYTHON=$(python3 -m uv python find 3.12)
fi
ensure_venv "$1"
