#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs ruff (rules and layout), mypy and the tests; with arguments pytest alone, on those (--slow: with those that are marked slow).
# PY is the interpreter; WORKERS the processes, which wait for others of their own a quarter of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PY:-.venv/bin/python}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
if [ $# = 0 ]; then
    "$PY" -m ruff check --quiet .
    "$PY" -m ruff format --quiet --check .
    "$PY" -m mypy --no-error-summary
fi
exec "$PY" -m pytest --quiet --numprocesses="${WORKERS:-3}" --dist=loadfile --no-loadscope-reorder "$@"
