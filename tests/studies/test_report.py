# SPDX-License-Identifier: Apache-2.0
"""Tables and the report: numbers against NumPy, and what is said of what is missing."""

import csv
import io
import json
import os
import re
import struct
import zlib

import numpy as np
import pytest

from tests.studies import tiny_studies
from tf_lwdgh.studies import report, tables
from tf_lwdgh.studies.board import Board
from tf_lwdgh.studies.figures.base import Figure

TEXT = """
Study.title = 'A <study>'
Study.note = 'Said before it ran.'
Study.baseline = 'mean'
Study.methods = [@a/Method(), @b/Method(), @c/Method(), @d/Method()]
Study.seeds = (0, 1)
a/Method.name = 'mean'
a/Method.published = '48.17 ± 1.75'
a/Method.source = 'the paper'
b/Method.name = 'LWDGH'
c/Method.name = 'broken'
d/Method.name = 'GNN'
d/Method.published = '50.33 ± 0.36'
d/Method.absent = 'Its learner is not here.'
"""
MADE = {"commands": ["python -m tf_lwdgh.train --x='a b'"], "hardware": "1 core of <cpu>",
        "commit": "abc", "versions": {"tensorflow": "2"}}  # fmt: skip
RNG = np.random.default_rng(0)
VALUES = {(m, s): RNG.integers(0, 76, 40) / 75 for m in ("mean", "LWDGH") for s in (0, 1)}


@pytest.fixture
def study():
    return tiny_studies.study(TEXT)


def found(*, seeds=(0, 1)):
    done = [
        tiny_studies.result(
            m, s, VALUES[m, s], made=MADE,
            measured={"gci": 2.0 + s, "conflict_rate": 0.3, "seconds_per_step": 0.5, "hours": 0.25},
        )
        for m in ("mean", "LWDGH")
        for s in seeds
    ]  # fmt: skip
    failed = [
        tiny_studies.result("broken", 0, np.zeros(0), state="diverged", about={}, message="a\ntrain: loss is nan")
    ]
    return done + failed


def row(study, name, **more):
    rows = tables.rows(study, study.settings[0], found(**more))
    return next(r for r in rows if r.method.name == name)


def test_accuracy_and_deviation_are_numpys(study):
    both = np.array([VALUES["LWDGH", 0], VALUES["LWDGH", 1]])
    ours = row(study, "LWDGH")
    assert ours.accuracy.mean == pytest.approx(both.mean())
    half = 1.96 * both.mean(0).std(ddof=1) / np.sqrt(40)
    assert ours.accuracy.interval95 == pytest.approx(half)
    assert ours.deviation == pytest.approx(both.mean(1).std(ddof=1))
    assert ours.measured["gci"] == 2.5 and ours.done == (0, 1)


def test_the_difference_is_paired_by_task_and_seed(study):
    pairs = np.array([VALUES["LWDGH", s] - VALUES["mean", s] for s in (0, 1)])
    ours = row(study, "LWDGH").difference
    assert ours.mean == pytest.approx(pairs.mean()) and (ours.n_seeds, ours.n_tasks) == (2, 40)
    assert row(study, "mean").difference is None


def test_one_seed_has_no_deviation_and_says_which_is_missing(study):
    ours = row(study, "LWDGH", seeds=(0,))
    assert ours.deviation is None and ours.difference.n_seeds == 1
    assert ours.remarks == ("Not run: seed 1.",)
    texts = report.cells(ours, "mean")
    assert texts[2] == "" and "(n = 1)" in texts[3]


def test_what_failed_is_absent_or_was_not_run_says_so(study):
    assert row(study, "broken").remarks == (
        "Seed 0 diverged: train: loss is nan", "Not run: seed 1."
    )  # fmt: skip
    assert row(study, "GNN").remarks == ("Its learner is not here.",)
    assert row(study, "GNN").published == "50.33 ± 0.36" and row(study, "GNN").accuracy is None
    nothing = tables.rows(study, study.settings[0], [])
    assert nothing[0].remarks == ("Not run.",)


def test_a_run_judged_on_other_tasks_is_not_compared(study):
    about = dict(found()[0].about, task_list_sha256="other")
    stale = tiny_studies.result("LWDGH", 1, np.ones(40), about=about)
    kept = [r for r in found() if (r.method, r.seed) != ("LWDGH", 1)]
    ours = next(r for r in tables.rows(study, study.settings[0], [*kept, stale]) if r.method.name == "LWDGH")
    assert ours.done == (0,) and ours.difference.n_seeds == 1
    assert "Seed 1 failed: judged on other tasks than mean, seed 0" in ours.remarks[0]


def png() -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\0"))


@pytest.fixture
def written(study, tmp_path):
    figure = Figure("loss", png(), "The <loss>.", [{"epoch": 1, "loss": 0.5}])
    report.write(study, found(), [figure], out=str(tmp_path), command="python -m tf_lwdgh.study")
    return tmp_path


def test_the_page_needs_no_other_file_and_escapes_names(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"(?:src|href)='([^']*)'", page)
    assert sources and all(s.startswith("data:") for s in sources)
    assert "<script" not in page and "http-equiv='refresh'" not in page
    assert "A &lt;study&gt;" in page and "The &lt;loss&gt;." in page and "<study>" not in page
    published = "Published figures (the paper) are"
    for text in ("Said before it ran.", "48.17 ± 1.75", published, "1 core of &lt;cpu&gt;", "abc"):
        assert text in page, text


def test_markdown_has_a_row_a_method_and_the_command(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 4
    mean = 100 * np.mean([VALUES["mean", 0], VALUES["mean", 1]])
    assert "| 30.0 % |" in text and f"| mean | {mean:.2f} ± " in text and "| baseline |" in text
    assert "- command: python -m tf_lwdgh.study" in text
    assert "![The <loss>.](figures/loss.png)" in text and (written / "figures/loss.png").exists()
    assert (written / "figures/loss.csv").read_text() == "epoch,loss\n1,0.5\n"


def test_csv_has_a_record_a_run(written):
    text = (written / "results.csv").read_text(encoding="utf-8")
    records = list(csv.DictReader(io.StringIO(text)))
    assert [(r["method"], r["seed"]) for r in records] == [
        ("mean", "0"), ("mean", "1"), ("LWDGH", "0"), ("LWDGH", "1"), ("broken", "0")
    ]  # fmt: skip
    ours = records[3]
    assert float(ours["accuracy"]) == pytest.approx(VALUES["LWDGH", 1].mean())
    assert float(ours["difference"]) == pytest.approx((VALUES["LWDGH", 1] - VALUES["mean", 1]).mean())
    assert records[0]["difference"] == "" and records[4]["state"] == "diverged"


def test_a_window_in_which_the_machine_slept_says_nothing_of_the_time_left(tmp_path):
    class Expected:
        steps, tasks_per_step = 100, 4

    job = tiny_studies.fake_job(tmp_path, "a")
    board = Board("S", {job: Expected}, {}, at_once=1, out=str(tmp_path), stream=io.StringIO())
    board.started(job)
    speeds = [8.0] * 39 + [0.01]
    lines = [{"step": s, "speed/tasks_per_second": v, "more": "x" * 10_000} for s, v in enumerate(speeds, 1)]
    os.makedirs(job.run_dir, exist_ok=True)
    with open(os.path.join(job.run_dir, "metrics.jsonl"), "w") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "spe')
    assert board.seconds_left() == pytest.approx(60 * 4 / 8)
    assert "a, seed 0 (40 of 100)" in board.line()


def test_the_board_counts_and_tells_the_time_left(study, tmp_path):
    class Expected:
        steps, tasks_per_step = 10, 4

    jobs = [tiny_studies.fake_job(tmp_path, m) for m in ("a", "b", "c")]
    said = io.StringIO()
    board = Board("S", dict.fromkeys(jobs, Expected), {}, at_once=1, out=str(tmp_path), stream=said)
    assert board.seconds_left() is None
    board.started(jobs[0])
    board.ended(jobs[0], tiny_studies.result("a", 0, np.ones(4), measured={"seconds_per_step": 2.0}))
    assert board.seconds_left() == pytest.approx(2 * 10 * 2.0)
    board.started(jobs[1])
    board.watch()
    assert "a, seed 0: 100.00 % accuracy over 4 tasks" in said.getvalue()
    assert "1 of 3 jobs done, 0:40 left · running: b, seed 0 (0 of 10)" in said.getvalue()
    page = (tmp_path / "progress.html").read_text(encoding="utf-8")
    assert "content='5'" in page and "running, step 0 of 10" in page and "waiting" in page
    board.ended(jobs[1], None)  # stopped
    board.watch(at_end=True)
    assert "refresh" not in (tmp_path / "progress.html").read_text(encoding="utf-8")
