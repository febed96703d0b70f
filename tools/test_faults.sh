#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries at length what may go wrong; each trial says what was promised and what happened.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PY:-.venv/bin/python}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
"$PY" -m tests.faults
"$PY" -m pytest --quiet --slow -m slow
"$PY" -m tests.converters.fuzzing --inputs 20000
STORE_FUZZ_EXAMPLES=4000 "$PY" -m pytest --quiet tests/data/test_store_fuzz.py
