# SPDX-License-Identifier: Apache-2.0
"""Methods of a study that start from another's run: in which order they are run, and from what they learn."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tests.studies import tiny_studies
from tf_lwdgh.runs import checkpoints
from tf_lwdgh.studies import conduct, local, results
from tf_lwdgh.studies.worker import Stop, Stopped

CHAIN = """
Study.methods = [@mean/Method(), @lwdgh/Method(), @after/Method(), @last/Method()]
after/Method.name = 'after'
after/Method.gin_files = ['gin/aggregators/mean.gin']
after/Method.start = 'mean'
last/Method.name = 'last'
last/Method.gin_files = ['gin/aggregators/mean.gin']
last/Method.start = 'after'
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("starts")


def conductor(folder, out="out", *, only="*", more=""):
    study = conduct.from_gin([tiny_studies.write(folder, CHAIN + more)])
    return conduct.Conductor(study, conduct.Place(str(folder / out), str(folder / "data"), "the command"), only=only)


class Fake:
    """An executor that keeps a made-up result of each job, or what it is told that came of it."""

    def __init__(self, **came):
        self.names: list[str] = []
        self._came = came

    def __call__(self, jobs, *, started, ended, watch, stop):
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(0)
            self.names.append(job.method)
            came = self._came.get(job.method)
            if came is None:
                came = tiny_studies.result(job.method, job.seed, np.full(12, 0.5))
                came.write(job.result_path)
            waiting += list(ended(job, came))
        watch()


def test_a_method_waits_for_the_run_that_it_starts_from(folder):
    fake, made = Fake(), conductor(folder, "waits")
    assert made.run(fake, at_once=1, stop=Stop())
    assert fake.names == ["mean", "LWDGH", "after", "last"]


def test_what_cannot_start_comes_to_nothing_and_is_tried_again(folder):
    fake, made = Fake(after=RuntimeError("no room")), conductor(folder, "fails")
    assert made.run(fake, at_once=1, stop=Stop())
    assert fake.names == ["mean", "LWDGH", "after"]
    failed = {job.method: made.done[job].message for job in made.failed}
    assert failed["after"] == "RuntimeError: no room"
    assert failed["last"].endswith("it starts from the run of after, which failed")
    for job in made.expected:
        if job.method in ("mean", "LWDGH"):
            assert results.read(job.result_path).state == results.DONE
    again = conductor(folder, "fails", only="last")
    assert again.run(Fake(), at_once=1, stop=Stop())
    assert [job.method for job in again.failed] == ["last"]  # what it starts from is still not there


def test_of_a_run_that_was_stopped_nothing_starts(folder):
    fake, made = Fake(mean=Stopped()), conductor(folder, "stopped")
    assert not made.run(fake, at_once=1, stop=Stop())
    assert fake.names == ["mean", "LWDGH"]
    assert [job.method for job in made.missing] == ["mean", "after", "last"]


def test_a_job_by_its_number_waits_too(folder):
    made = conductor(folder, "numbers")
    with pytest.raises(ValueError, match="after, seed 0: it starts from the run of mean, which is not done yet"):
        made.run_one(2, Stop())


@pytest.mark.slow  # tests/runs/test_start.py has the start, those above the order
def test_its_first_values_are_those_that_the_other_run_learned_last(folder):
    def execute(jobs, **how):
        local.run(jobs, shares=local.slots(1), **how)

    made = conductor(folder, only="*", more="Study.methods = [@mean/Method(), @after/Method()]\n")
    assert made.run(execute, at_once=1, stop=Stop()) and not made.failed
    mean, after = made.expected
    started = checkpoints.of_run(after.run_dir).newest()["start"]
    assert (started["start"], started["checkpoint"], started["step"]) == (mean.run_dir, "last", 8)
    files = checkpoints.of_run(mean.run_dir).newest()["files"]
    assert started["files"] == files
    text = (folder / "out/report.md").read_text(encoding="utf-8")
    assert "Starts from mean." in text
    commands = results.read(after.result_path).made["commands"]
    assert f"Experiment.start = '{mean.run_dir}'" in commands[0].replace("'\"'\"'", "'")
    # Moved elsewhere it is still whole; made of another start it is not taken.
    os.rename(folder / "out", folder / "moved")
    assert not conductor(folder, "moved", more="Study.methods = [@mean/Method(), @after/Method()]\n").missing
    path = folder / "moved/results/after-seed0.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["settings"]["Experiment.start"] = "'/elsewhere/runs/lwdgh/seed0'"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="after, seed 0: .*other settings:\n *Experiment.start: was .*lwdgh/seed0"):
        conductor(folder, "moved", more="Study.methods = [@mean/Method(), @after/Method()]\n")
