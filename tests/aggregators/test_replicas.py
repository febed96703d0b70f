# SPDX-License-Identifier: Apache-2.0
"""Replicas with a part of the tasks each give what one gives with all, and the same on all of them."""

import json
import os
import subprocess
import sys

from tests.aggregators.cases import FIRST
from tests.aggregators.replicas import KINDS
from tf_lwdgh.aggregators.explore_exploit import MODES


def test_two_and_four_replicas_aggregate_as_one_does():
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tests.aggregators.replicas"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    compared = {name.rsplit(" of ", 1)[0] for name in report}
    explored = {f"explore {mode}" for mode in MODES}
    assert compared >= {*FIRST, *explored, "report", "LWDGH relative", "MGDA both", "TrimmedMean 2"}
    on_four = {name for name in report if name.endswith(" of 8")}
    assert on_four >= {f"{name} of 8" for name in (*explored, *KINDS, "report")}
    for name, differences in report.items():
        assert differences["one_and_several"] < 1e-9, (name, differences)
        assert differences["replicas"] == 0, (name, differences)
