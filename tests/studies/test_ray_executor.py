# SPDX-License-Identifier: Apache-2.0
"""Ray's tasks: nothing lost and nothing run twice when a worker is killed; Ctrl-C saves."""

from __future__ import annotations

import glob
import os
import pathlib
import signal
import sys
import threading
import time

import numpy as np
import pytest

from tests.studies import tiny_jobs
from tf_lwdgh.runs import summaries
from tf_lwdgh.studies import executors, ray_executor, results, worker
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.worker import Stop


@pytest.fixture
def address(monkeypatch):
    """A cluster of two nodes of one core."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def parent_of_training(run_dir: str) -> int | None:
    """The process that trains a run was started by this one; None where none trains."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = pathlib.Path(path).read_bytes().decode().split("\0")
            if "tf_lwdgh.train" in words and f"--run_dir={run_dir}" in words:
                stat = (pathlib.Path(path).parent / "stat").read_text()
                return int(stat.rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def kill_worker_midway(job, killed: list[int]) -> None:
    """Kills the Ray worker of a job once it has trained some steps."""
    metrics = pathlib.Path(job.run_dir, summaries.METRICS_FILE)
    while not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)
    pid = parent_of_training(job.run_dir)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        killed.append(int(summaries.read_metrics(job.run_dir)[-1]["step"]))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_worker_loses_nothing_and_nothing_is_run_twice(tmp_path, address):
    jobs = tiny_jobs.make(tmp_path, ["killed", "untouched", "mistaken"])
    jobs[2] = tiny_jobs.with_mistake(jobs[2])
    killed: list[int] = []
    killer = threading.Thread(target=kill_worker_midway, args=(jobs[0], killed), daemon=True)
    killer.start()
    begun, came = [], {}
    with ray_executor.connect(address, cores_per_job=1) as cluster:
        assert cluster == ray_executor.Cluster(at_once=2, cores_per_job=1, gpus_per_job=0)
        ray_executor.run(
            dict.fromkeys(jobs, tiny_jobs.STEPS), cluster=cluster, started=begun.append,
            ended=came.__setitem__, watch=lambda: None, stop=Stop(),
        )  # fmt: skip
    killer.join()

    assert len(killed) == 1 and killed[0] < tiny_jobs.STEPS
    assert sorted(j.method for j in begun) == ["killed", "mistaken", "untouched"]
    first, second, third = (came[job] for job in jobs)
    assert (first.state, second.state, third.state) == ("done", "done", "failed")
    np.testing.assert_array_equal(first.accuracies, second.accuracies)  # to the bit
    assert first.losses == second.losses
    for job in jobs[:2]:
        steps = [line["step"] for line in summaries.read_metrics(job.run_dir)]
        assert steps == sorted(set(steps)) and steps[-1] == tiny_jobs.STEPS
        assert len(glob.glob(os.path.join(job.run_dir, "evaluation", "*.json"))) == 1
    assert [log(job).count("going on from step") for job in jobs] == [1, 0, 0]
    assert [log(job).count("accuracy over 20 test tasks") for job in jobs] == [1, 1, 0]
    assert log(jobs[2]).count("nothing in this experiment uses") == 1  # a mistake is not tried again
    for job in jobs:
        assert results.read(job.result_path).state == came[job].state


def log(job) -> str:
    return pathlib.Path(job.run_dir, worker.LOG).read_text()


def task(job, known: str | None = None) -> Result | None:
    return ray_executor._train_and_judge(job, tiny_jobs.STEPS, 1, "token", known)


def test_a_task_that_starts_after_its_result_was_written_runs_nothing(tmp_path, monkeypatch):
    (job,) = tiny_jobs.make(tmp_path, ["a"])
    ran = []
    monkeypatch.setattr(worker, "run", lambda *_, **__: ran.append(1))
    Result("", "a", 3, results.DIVERGED, "at step 3").write(job.result_path)
    assert task(job).message == "at step 3" and not ran
    before = pathlib.Path(job.result_path).read_text()
    task(job, known=before)  # of an earlier study, which is why the job is run again
    assert ran
    assert pathlib.Path(job.run_dir, ".ray_task").read_text() == "token"


@pytest.mark.parametrize(("times", "expected"), [(1, "asked"), (2, "asked, at once")])
def test_a_cancelled_task_is_saved_and_a_second_time_stopped_at_once(tmp_path, monkeypatch, times, expected):
    (job,) = tiny_jobs.make(tmp_path, ["a"])
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # as in Ray's workers; in the background a shell ignores it
    seen = []

    def run(*_, stop: Stop, **__):
        for _ in range(times):  # as ray.cancel does, in the main thread
            time.sleep(0.5)
            signal.raise_signal(signal.SIGINT)
        assert stop.asked.wait(5) and (times == 1 or stop.at_once.wait(5))
        seen.append("asked, at once" if stop.at_once.is_set() else "asked")
        raise worker.Stopped

    monkeypatch.setattr(worker, "run", run)
    assert task(job) is None
    assert seen == [expected]


class FakeRay:
    """Tasks that never begin."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    def remote(self, **_):
        return lambda function: self

    def cancel(self, reference) -> None:
        self.cancelled.append(reference)


def test_each_ctrl_c_is_passed_on_once(tmp_path, monkeypatch):
    fake, stop = FakeRay(), Stop()
    tasks = ray_executor._Tasks(fake, ray_executor.Cluster(1, 1, 0), {})
    tasks.waiting = {"one": None, "two": None}
    tasks.pass_on(stop)
    assert not fake.cancelled
    stop.asked.set()
    tasks.pass_on(stop)
    tasks.pass_on(stop)
    assert fake.cancelled == ["one", "two"]
    stop.at_once.set()
    tasks.pass_on(stop)
    assert fake.cancelled == ["one", "two"] * 2


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--executor=ray needs Ray.*pip install 'tf_lwdgh\[ray\]'"):
        with ray_executor.connect(None, cores_per_job=1):
            pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"name": "slurm"}, "--executor must be one of local, ray. Received: 'slurm'"),
        ({"name": "local", "jobs": 0}, "--jobs must be at least 1. Received: --jobs=0"),
        ({"name": "ray", "cores_per_job": 0}, "--cores_per_job must be at least 1"),
    ],
)
def test_wrong_flags_are_named(flags, message):
    given = {"jobs": 1, "gpus": 0, "ray_address": None, "cores_per_job": 1, **flags}
    with pytest.raises(ValueError, match=message):
        with executors.executor(given.pop("name"), **given):
            pass
