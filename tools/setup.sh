#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv with the pinned requirements; does nothing where it is up to date.
# PYTHON=python3.12 chooses the interpreter; by default the first of python3, python3.13, ... that fits.
set -euo pipefail
cd "$(dirname "$0")/.."

fits='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
stamp=.venv/requirements.installed

wanted() {
    "$1" -c "$fits" 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
    if ! wanted "$PYTHON"; then
        echo "setup: Python 3.10 to 3.13 is needed. Received: PYTHON=$PYTHON," \
            "which is $("$PYTHON" -c "$version" 2>/dev/null || echo 'no Python that runs')." >&2
        exit 2
    fi
    # Another minor version than .venv's: start it anew.
    minor='import sys; print(sys.version_info[:2])'
    if [ -x .venv/bin/python ] && [ "$(.venv/bin/python -c "$minor")" != "$("$PYTHON" -c "$minor")" ]; then
        rm -f "$stamp"
        rm -rf .venv
    fi
fi

if [ -x .venv/bin/python ] && cmp -s requirements.txt "$stamp"; then
    exit 0
fi

if [ -x .venv/bin/python ] && wanted .venv/bin/python; then
    python=.venv/bin/python
else
    python=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if wanted "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "setup: Python 3.10 to 3.13 is needed, and none was found; python3 is" \
            "$(python3 -c "$version" 2>/dev/null || echo missing). Set PYTHON to one that fits:" \
            "PYTHON=/path/to/python3.12 make demo" >&2
        exit 2
    fi
    echo "setup: making .venv with Python $("$python" -c "$version")"
    # Some systems ship Python without ensurepip; the outer pip then fills the environment.
    "$python" -m venv .venv 2>/dev/null || "$python" -m venv --clear --without-pip .venv
fi

pip=(.venv/bin/python -m pip)
if ! "${pip[@]}" --version >/dev/null 2>&1; then
    pip=("$python" -m pip --python .venv/bin/python)
fi
quiet=(--quiet --disable-pip-version-check)
echo "setup: installing TensorFlow and the rest into .venv; a download of about 0.8 GB the first time"
# The pip that comes with Python 3.10 searches for hours for versions that fit; this one takes seconds.
"${pip[@]}" install "${quiet[@]}" pip==26.3
pip=(.venv/bin/python -m pip)
"${pip[@]}" install "${quiet[@]}" --no-compile --requirement requirements.txt
# pip would compile with one core. Some packages ship files that no Python compiles.
.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null || true
cp requirements.txt "$stamp"
echo "setup: done"
