#!/usr/bin/env bash
# Sets up .venv and runs the checks and tests; arguments go to pytest:
#   bash launch/test.sh
#   bash launch/test.sh tests/test_api.py -k odd
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
source launch/venv.sh
ensure_venv test

export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}

"$python" -m ruff format --check .
"$python" -m ruff check .
# Whole files go to a worker, so that their fixtures are made once, in the order
# of tests/conftest.py.
exec "$python" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
