# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a run of several processes: TF_CONFIG, Slurm's variables, and what is refused."""

from __future__ import annotations

import functools
import json

import pytest
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.outer import cluster, strategies
from tf_lwdgh.outer.cluster import MultiWorker, WorkerLost, losses_said

SLURM = ("PROCID", "LOCALID", "STEP_NUM_TASKS", "STEP_NODELIST", "STEP_TASKS_PER_NODE")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURMD_NODENAME", *(f"SLURM_{n}" for n in SLURM)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def joined(monkeypatch):
    """As if this process had joined others."""
    monkeypatch.setattr(cluster, "connect", functools.cache(lambda: None))
    cluster.connect()


def tf_config(monkeypatch, job, index, **jobs):
    told = {"cluster": jobs, "task": {"type": job, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))


def slurm(monkeypatch, host, local, rank):
    values = (rank, local, 8, "n[8-11]", "2(x4)")
    for name, value in zip(SLURM, values):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURMD_NODENAME", host)


def test_without_a_cluster_several_processes_are_refused():
    with pytest.raises(ValueError, match="needs a cluster: TF_CONFIG .* Slurm step .*Received: neither"):
        strategies.make("multi_worker")


def test_tf_config_says_who_takes_part_and_the_chief_comes_first(monkeypatch):
    tf_config(monkeypatch, "worker", 1, worker=["a:1", "b:1"], chief=["c:1"], evaluator=["d:1"])
    here = cluster.place(MultiWorker())
    assert here.names == ["chief 0", "worker 0", "worker 1"]
    assert here.number == 2
    assert "evaluator" not in here.jobs


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": {"worker": ["a:1"]}}', '{"task": {}}'])
def test_a_tf_config_that_lacks_something_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON .* Received: TF_CONFIG = "):
        cluster.place(MultiWorker())


@pytest.mark.parametrize(("job", "index"), [("worker", 2), ("evaluator", 0), ("ps", 0)])
def test_a_process_that_has_no_part_is_refused(monkeypatch, job, index):
    tf_config(monkeypatch, job, index, worker=["a:1", "b:1"], evaluator=["c:1"])
    with pytest.raises(ValueError, match=f"one of worker 0, worker 1; .*Received: task {job} {index}"):
        cluster.place(MultiWorker())


@pytest.mark.parametrize("dealt", ["block", "cyclic"])
def test_every_process_of_a_slurm_step_finds_its_own_address(monkeypatch, dealt):
    numbers = set()
    for node in range(4):
        for local in range(2):
            rank = 2 * node + local if dealt == "block" else 4 * local + node
            slurm(monkeypatch, f"n{8 + node}", local, rank)
            here = cluster.place(MultiWorker(slurm_port=7000))
            assert here.jobs["worker"][here.index] == f"n{8 + node}:{7000 + local}"
            numbers.add(here.number)
    assert numbers == set(range(8))


def test_tf_config_comes_before_slurm(monkeypatch):
    slurm(monkeypatch, "n8", 0, 0)
    tf_config(monkeypatch, "worker", 0, worker=["a:1"])
    assert cluster.place(MultiWorker()).jobs == {"worker": ("a:1",)}


def test_a_process_outside_its_slurm_step_is_refused(monkeypatch):
    slurm(monkeypatch, "elsewhere", 0, 0)
    with pytest.raises(ValueError, match="Received: elsewhere:8888, not one of n10:8888"):
        cluster.place(MultiWorker())
    monkeypatch.delenv("SLURM_LOCALID")
    with pytest.raises(ValueError, match="Received: SLURM_LOCALID not set"):
        cluster.place(MultiWorker())


@pytest.mark.parametrize(("name", "value"), [("timeout", 0.0), ("slurm_port", 70000)])
def test_settings_out_of_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"MultiWorker.{name} must be .*Received: MultiWorker.{name}"):
        MultiWorker(**{name: value})


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("aborted by: Socket closed\nfrom remote target /job:worker/replica:0/task:1 while calling", "worker 1"),
        ("from remote target /job:chief/replica:0/task:0 … remote target /job:worker/replica:0/task:2", "chief 0"),
        ("aborted by: Error reported from /job:worker/task:2: The following tasks are unhealthy", "worker 2"),
        ("Device /job:worker/replica:0/task:0 current incarnation doesn't match", "another process"),
    ],
)  # fmt: skip
def test_a_lost_process_is_named(said, name, joined):
    with pytest.raises(WorkerLost, match=f"^{name} is gone. Start all processes again"), losses_said():
        raise tf.errors.UnavailableError(None, None, said)


def test_a_process_that_does_not_answer_is_waited_for_no_longer_than_was_said(joined):
    config.parse([], ["MultiWorker.timeout = 5.0"])
    with pytest.raises(WorkerLost, match="has not answered for 5 seconds"), losses_said():
        raise tf.errors.DeadlineExceededError(None, None, "Collective has timed out")


def test_errors_of_one_process_alone_stay_what_they_are():
    for error in (tf.errors.UnavailableError, tf.errors.DeadlineExceededError):
        with pytest.raises(error), losses_said():
            raise error(None, None, "something else")
