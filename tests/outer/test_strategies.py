# SPDX-License-Identifier: Apache-2.0
"""Runs over several replicas: trained end to end they log what a run on one device logs."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tf_lwdgh.outer import strategies
from tf_lwdgh.outer.workers import Workers

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_mirrored_run_that_was_stopped_logs_the_losses_of_a_run_on_one_device(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.outer.mirrored_run", str(tmp_path)],
        env=env, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["replicas"] == 2
    assert len(report["default"]) == 12
    assert report["mirrored"] == pytest.approx(report["default"], rel=1e-4)
    assert "must be a multiple of the replicas, of which there are 2" in report["odd"]


def test_unknown_strategies_are_refused():
    with pytest.raises(ValueError, match="must be one of default, mirrored, multi_worker. Received: .* = 'tpu'"):
        strategies.make("tpu")


@pytest.mark.parametrize(("n", "count"), [(6, 3), (7, 3), (5, 8), (200, 3)])
def test_things_are_shared_out_once_and_the_first_process_has_some(n, count):
    shares = []
    for index in range(count):
        one = Workers(strategies.make("default"))
        one.index, one.count = index, count
        shares.append(one.share(n))
    assert [i for share in shares for i in share] == list(range(n))
    assert len(shares[0]) > 0
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
