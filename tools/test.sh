#!/usr/bin/env bash
# Runs all tests, and before them what reads the code: ruff and mypy. PY is the interpreter, further
# arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PY:-.venv/bin/python}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
"$PY" -m ruff check --quiet .
"$PY" -m mypy --no-error-summary
exec "$PY" -m pytest --quiet --numprocesses="${WORKERS:-2}" --dist=loadfile --no-loadscope-reorder "$@"
