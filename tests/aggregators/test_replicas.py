"""Two replicas with half of the tasks each give what one gives with all, and the same on both."""

import json
import os
import subprocess
import sys

from tests.aggregators.cases import FIRST


def test_two_replicas_aggregate_as_one_does():
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tests.aggregators.replicas"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    compared = {name.rsplit(" of ", 1)[0] for name in report}
    assert compared >= {
        *FIRST,
        "report",
        "explored",
        "LWDGH relative",
        "MGDA both",
        "TrimmedMean 2",
    }
    for name, differences in report.items():
        assert differences["one_and_two"] < 1e-9, (name, differences)
        assert differences["replicas"] == 0, (name, differences)
