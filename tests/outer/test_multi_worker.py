# SPDX-License-Identifier: Apache-2.0
"""Several processes share a run over loopback: the numbers, who reads and writes what, and a lost one."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from bench.communication import Setting, all_reduces
from tests.outer import collective_count
from tests.outer.shared_run import KILLED_AT
from tf_lwdgh.command_line import WORKER_LOST
from tf_lwdgh.runs import checkpoints
from tf_lwdgh.runs.summaries import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What tests.outer.shared_run leaves behind."""
    path = tmp_path_factory.mktemp("shared")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.outer.shared_run", str(path)],
        env=env, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return path


@pytest.fixture(scope="module")
def ended(folder):
    """Exit codes and standard errors, by what was run."""
    return json.loads((folder / "report.json").read_text())


def of(folder, count):
    return [json.loads((folder / f"of-{count}-{i}.json").read_text()) for i in range(count)]


def lines(run_dir):
    return [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in read_metrics(run_dir)]


def assert_alike(found, expected, rel):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert set(a) == set(b)
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=rel, abs=1e-6), (key, a["step"])


@pytest.mark.parametrize("name", ["alone", "of 2", "of 3", "again"])
def test_the_processes_end_well(ended, name):
    assert [code for code, _ in ended[name]] == [0] * len(ended[name]), ended[name]


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_the_updates_of_one(folder, ended, count):
    for report in of(folder, count):
        assert report["steps"]["weights"] < 1e-9, report
        assert report["steps"]["metrics"] < 1e-6, report
        assert len(set(report["steps"]["flags"])) == 2  # some steps explore and some exploit


@pytest.mark.parametrize("name", collective_count.AGGREGATORS)
def test_a_step_sends_what_the_formulas_say(folder, ended, name):
    sizes, setting = of(folder, 2)[0]["all_reduces"][name]
    setting = Setting(**setting)
    assert sorted(sizes) == sorted(all_reduces(name, setting))
    gradient = setting.parameters * setting.size
    if name in ("mean", "lwdgh"):
        assert sizes.count(gradient) == {"mean": 1, "lwdgh": 2}[name]  # the others: a few scalars
        assert len(sizes) == sizes.count(gradient) + 3


def test_a_run_of_three_that_one_stopped_logs_what_one_process_logs(folder, ended):
    assert [(r["stopped_at"], r["ended_at"]) for r in of(folder, 3)] == [(2, 8)] * 3
    assert len(lines(folder / "alone")) == 8
    assert_alike(lines(folder / "stopped"), lines(folder / "alone"), rel=1e-4)


def test_each_process_reads_its_own_tasks_alone(folder, ended):
    assert [report["read"] for report in of(folder, 3)] == [0] * 3


def test_only_the_first_process_writes(folder, ended):
    written = [report["written"] for report in of(folder, 3)]
    assert any("metrics.jsonl" in w for w in written[0])
    assert written[1:] == [[], []]
    runs = list((folder / "stopped").glob("events*"))
    assert len(runs) == 2  # a file a start, of the first process alone


def test_tasks_that_do_not_come_out_even_are_refused(folder, ended):
    for report in of(folder, 3):
        assert (
            "OuterLoop.meta_batch_size must be a multiple of the replicas, of which there are 3" in (report["uneven"])
        )


def test_other_settings_in_one_process_are_refused_by_all(folder, ended):
    for report in of(folder, 3):
        assert report["unlike"].startswith("all processes of a run must have the same gin settings.")
        assert "another in process 2 than in process 0" in report["unlike"]


def test_where_one_is_killed_the_others_say_so_and_stop(ended):
    codes = [code for code, _ in ended["killed"]]
    assert codes == [WORKER_LOST, -9, WORKER_LOST], ended["killed"]
    last = [ended["killed"][i][1].splitlines()[-1] for i in (0, 2)]
    for line in last:
        assert re.match(r"train: worker \d is gone. Start all processes again", line), line
    assert any("worker 1 is gone" in line for line in last)  # the other may have missed the messenger


def test_a_run_goes_on_exactly_after_a_restart(folder, ended):
    assert "going on from step 4" in ended["again"][0][1]
    assert KILLED_AT > 4
    assert lines(folder / "killed") == lines(folder / "stopped")
    weights = []
    for name in ("killed", "stopped"):
        kept = checkpoints.of_run(folder / name)
        weights.append(kept.newest()["files"])
        assert kept.steps() == [4, 8]
    assert weights[0] == weights[1]
    assert np.isfinite([line["train/loss"] for line in lines(folder / "killed")]).all()
