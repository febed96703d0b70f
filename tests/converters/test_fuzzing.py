# SPDX-License-Identifier: Apache-2.0
"""Some hundreds of made-up inputs of each kind; `fuzzing` reads as many as one likes."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
INPUTS = 150


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_made_up_inputs_are_read_or_refused_by_errors_that_are_foreseen():
    done = subprocess.run(
        [sys.executable, "-m", "tests.converters.fuzzing", f"--inputs={INPUTS}"], cwd=ROOT,
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.count(f"{INPUTS} inputs") == 7
