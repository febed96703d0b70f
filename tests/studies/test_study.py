# SPDX-License-Identifier: Apache-2.0
"""A small study from its gin file to its report, by the real commands; and what a second start does."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.studies import tiny_studies
from tf_lwdgh.studies import conduct, estimate, local, results
from tf_lwdgh.studies.worker import Stop

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


def conductor(folder, *, more="", cell_params=(), only="*"):
    study = conduct.from_gin([tiny_studies.write(folder, more)], cell_params=cell_params)
    place = conduct.Place(str(folder / "out"), str(folder / "data"), "the command")
    return conduct.Conductor(study, place, only=only)


def run(made):
    def execute(jobs, **how):
        local.run(jobs, shares=local.slots(1), **how)

    return made.run(execute, at_once=1, stop=Stop())


@pytest.fixture(scope="module")
def conducted(folder):
    made = conductor(folder)
    assert [j.name for j in made.missing] == ["mean, seed 0", "LWDGH, seed 0"]
    assert run(made)
    return made


def test_both_methods_are_judged_on_the_same_tasks(conducted):
    ours = list(conducted.done.values())
    assert [r.state for r in ours] == [results.DONE] * 2
    assert len({r.about["task_list_sha256"] for r in ours}) == 1
    assert all(len(r.accuracies) == 12 and r.steps == 8 for r in ours)
    assert all(len(r.losses) == 2 and r.measured["gci"] > 0 for r in ours)
    assert "LWDGH" not in ours[0].settings["Experiment.aggregator"]
    assert ours[1].settings["Experiment.aggregator"] == "@LWDGH()"


def test_the_report_is_there(folder, conducted):
    text = (folder / "out/report.md").read_text(encoding="utf-8")
    assert "| mean | " in text and "Its learner is not here." in text and "48.17 ± 1.75" in text
    assert (folder / "out/report.html").exists() and (folder / "out/results.csv").exists()
    assert "2 of 2 jobs are done" in (folder / "out/progress.html").read_text(encoding="utf-8")


def test_a_second_start_has_nothing_to_do_even_without_the_run_folders(folder, conducted):
    os.rename(folder / "out/runs", folder / "out/gone")
    try:
        again = conductor(folder)
        assert not again.missing and len(again.done) == 2
        assert run(again)
        assert not (folder / "out/runs").exists()
    finally:
        os.rename(folder / "out/gone", folder / "out/runs")


def test_another_seed_is_all_that_is_missing(folder, conducted):
    more = conductor(folder, more="Study.seeds = (0, 1)\n")
    assert [j.name for j in more.missing] == ["mean, seed 1", "LWDGH, seed 1"]


def test_other_settings_are_refused_with_both_values(folder, conducted):
    with pytest.raises(ValueError, match="mean, seed 0: .*was made with other settings") as error:
        conductor(folder, cell_params=["INNER_STEPS = 2"])
    assert "InnerLoop.steps: was 1, now 2" in str(error.value)
    with pytest.raises(ValueError, match="meta-steps: was 8, now 12|OuterLoop.epochs: was 2, now 3"):
        conductor(folder, cell_params=["EPOCHS = 3"], only="LWDGH")


def test_other_tests_are_judged_anew_and_nothing_is_trained(folder, conducted):
    more = "Study.evaluation = ['Evaluation.n_tasks = 6']\n"
    changed = conductor(folder, more=more, only="mean")
    assert len(changed.missing) == 1
    metrics = folder / "out/runs/mean/seed0/metrics.jsonl"
    before = metrics.read_text(encoding="utf-8")
    kept = (folder / "out/results/mean-seed0.json").read_bytes()
    assert run(changed)
    assert len(next(iter(changed.done.values())).accuracies) == 6
    assert metrics.read_text(encoding="utf-8") == before
    report = (folder / "out/report.md").read_text(encoding="utf-8")
    assert "judged on other tasks than mean" in report  # LWDGH, which this start left alone
    (folder / "out/results/mean-seed0.json").write_bytes(kept)


@pytest.mark.parametrize(
    "more, cell_params, message",
    [
        ("mean/Method.gin_params = ['LWDGH.temperature = 2']\n", [], "mean: --gin_param: nothing .* LWDGH"),
        ("", ["NOPE = 1"], "mean: .*No setting takes its value from the macro NOPE"),
        ("mean/Method.gin_files = ['gin/no.gin']\n", [], "mean: --gin_file: no such file.*gin/no.gin"),
        ("Study.checkpoint = 'best'\n", [], "mean: .*'best' needs validation"),
        ("Study.evaluation = ['Evaluation.n_way = 2']\n", [], "mean: Evaluation.n_way"),
        ("", ["N_QUERY = 99"], "mean: .*images"),
    ],
)
def test_a_wrong_cell_is_named_before_anything_trains(folder, more, cell_params, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        conductor(folder, more=more, cell_params=cell_params)


def test_a_job_by_its_number(folder, conducted, capsys):
    assert conductor(folder).run_one(1, Stop())
    assert "LWDGH, seed 0: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--job must be in \[0, 2\). Received: --job=2"):
        conductor(folder).run_one(2, Stop())


def test_the_estimate_needs_no_data_and_counts_all_runs(folder, conducted, tmp_path, capsys):
    made = conductor(folder)
    shares = local.slots(1)
    jobs = list(made.expected)
    nowhere = [type(j)(**{**vars(j), "data_dir": str(tmp_path)}) for j in jobs]
    estimate.say(nowhere, made.study, shares)
    said = capsys.readouterr().out
    assert "8 of them" in said and "2 runs" in said and "all 2 runs, 1 at once: about 0.0 hours" in said


def test_a_failed_job_is_run_again_and_a_diverged_one_is_not(folder, conducted):
    job = next(iter(conducted.expected))
    with open(job.result_path, encoding="utf-8") as file:
        kept = file.read()
    try:
        for state, missing in ((results.FAILED, 1), (results.DIVERGED, 0)):
            with open(job.result_path, "w", encoding="utf-8") as file:
                json.dump({**json.loads(kept), "state": state}, file)
            assert len(conductor(folder).missing) == missing
    finally:
        with open(job.result_path, "w", encoding="utf-8") as file:
            file.write(kept)


def test_a_study_stopped_before_any_result_ends_well_and_says_what_is_left(folder, conducted, tmp_path):
    """By the command itself: Ctrl-C as soon as its first run is under way."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_lwdgh.study", f"--gin_file={folder / 'study.gin'}", "--noestimate",
         f"--data_dir={folder / 'data'}", f"--out={tmp_path / 'out'}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "out/runs/mean/seed0/job.log").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "stopped: 2 runs are left; the same command goes on with them" in said
    assert "Traceback" not in said and not (tmp_path / "out/report.html").exists()
