# SPDX-License-Identifier: Apache-2.0
"""Thread pools: what they become for one task and for several, and what says so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest

from tf_lwdgh.outer.threads import Threads

# One fresh interpreter for all cases: the pools must be set before TensorFlow's first operation.
PROGRAM = """
import json, logging, os, sys
import tensorflow as tf
from tf_lwdgh.outer import threads
from tf_lwdgh.outer.threads import Threads

lines = []
threads._log.setLevel(logging.INFO)
threads._log.addFilter(lambda record: lines.append(record.getMessage()))
pools = tf.config.threading
out = {"affinity": threads.cores() == len(os.sched_getaffinity(0))}
threads.cores = lambda: 3
on_cpu, on_gpu = (lambda kind: []), (lambda kind: [kind])

def apply(name, devices, tasks, **settings):
    pools.set_inter_op_parallelism_threads(0)
    pools.set_intra_op_parallelism_threads(0)
    tf.config.list_physical_devices = devices
    Threads(**settings).apply(tasks)
    found = [pools.get_inter_op_parallelism_threads(), pools.get_intra_op_parallelism_threads()]
    out[name] = [*found, lines[-1]]

apply("one", on_cpu, 1)
apply("four", on_cpu, 4)
apply("many", on_cpu, None)
apply("set", on_cpu, 1, inter_op=7, intra_op=2)
apply("intra", on_cpu, 4, intra_op=5)
apply("gpu", on_gpu, 4)
apply("gpu_set", on_gpu, 4, inter_op=6)
out["kernels"] = os.environ["TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"]
tf.zeros([1])
try:
    Threads(inter_op=2).apply()
except RuntimeError as error:
    out["late"] = str(error)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def found():
    """The pools [inter_op, intra_op] and the log line by case, on a machine of 3 cores."""
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env["CUDA_VISIBLE_DEVICES"] = "-1"
    env.pop("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", None)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "case, inter_op, intra_op",
    [
        ("one", 3, 3), ("four", 3, 1), ("many", 3, 1), ("set", 7, 2), ("intra", 3, 5),
        ("gpu", 0, 0), ("gpu_set", 6, 0),
    ],
)  # fmt: skip
def test_pools_fit_the_tasks_where_they_are_not_set(found, case, inter_op, intra_op):
    assert found[case][:2] == [inter_op, intra_op]  # 0: TensorFlow's choice


def test_the_log_names_both_pools_and_their_settings(found):
    assert found["set"][2] == (
        "threads: 7 operations at once (Threads.inter_op), 2 threads an operation (Threads.intra_op)"
    )
    assert "TensorFlow's choice of operations at once" in found["gpu"][2]
    assert "its choice of threads an operation" in found["gpu"][2]


def test_the_cores_are_those_this_process_may_use(found):
    assert found["affinity"]


def test_kernels_are_kept_unless_the_user_says_otherwise(found, monkeypatch):
    assert found["kernels"] == "0"
    monkeypatch.setenv("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "1")
    with contextlib.suppress(RuntimeError):  # TensorFlow may be running.
        Threads().apply()
    assert os.environ["TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"] == "1"


def test_pools_cannot_be_set_after_the_first_operation(found):
    assert "cannot be modified after initialization" in found["late"]


@pytest.mark.parametrize("name", ["inter_op", "intra_op"])
def test_a_pool_without_threads_is_refused(name):
    with pytest.raises(ValueError, match=f"Threads.{name} must be at least 1. Received: 0"):
        Threads(**{name: 0})
