# SPDX-License-Identifier: Apache-2.0
"""The interface for Python as docs/python.md shows it, and what the doctor says of what that leaves."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tf_lwdgh as fs
from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.examinations import exported, run
from tf_lwdgh.runs import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
(SNIPPET,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.DOTALL)
# Instead of what the document trains: a learner and a network whose graphs are made in moments.
FILES = ["glyphs", "sizes/tiny", "learners/prototypical_network"]
SMALL = ["SEED = 1", "convnet4.fused = False", "convnet4.blocks = 1", "convnet4.filters = 2"]
SHORT = SNIPPET.replace('["glyphs", "sizes/tiny"], ["SEED = 1"]', f"{FILES}, {SMALL}")
# AutoGraph makes a module of each function that it rewrites, which is called tf__<its name> there.
REWRITTEN = """
import inspect, re, sys
made = [m for name, m in sys.modules.items() if name.startswith("__autograph_generated")]
print(sorted({name for m in made for name in re.findall(r"def (tf__\\w+)", inspect.getsource(m))}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A folder with data/, runs/tiny and exported/tiny, all as the document's Python makes them."""
    path = tmp_path_factory.mktemp("python")
    tiny.write_patterns(path / "data", name="glyphs")
    done = subprocess.run(
        [sys.executable, "-c", SHORT + REWRITTEN], cwd=path, capture_output=True, text=True, timeout=600,
        env={**{k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path / "said.txt").write_text(done.stdout, encoding="utf-8")
    assert done.stderr == ""
    return path


@pytest.fixture
def copied(folder, tmp_path, monkeypatch):
    """A copy that may be spoiled, as the working directory."""
    for name in ("data", "runs", "exported"):
        shutil.copytree(folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_python_says_what_the_document_says_and_nothing_more(folder):
    result, numbers, shapes, same, _ = (folder / "said.txt").read_text(encoding="utf-8").splitlines()
    assert SHORT != SNIPPET
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d % accuracy over 30 test tasks of glyphs: 5-way 1-shot, .*", result)
    mean, interval, shape = numbers.split(" ", 2)
    assert result.startswith(f"{100 * float(mean):.2f} ± {100 * float(interval):.2f} %") and shape == "(30,)"
    assert (shapes, same) == ("(7, 5) int32", "True")


def test_autograph_rewrites_nothing_that_is_trained_judged_or_exported(folder):
    names = (folder / "said.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert names == "['tf__signature_wrapper']"  # which TensorFlow puts around what is exported


def test_a_run_judged_in_python_is_the_commands_result(copied):
    (kept,) = (copied / "runs/tiny/evaluation").glob("*.json")
    before = json.loads(kept.read_text(encoding="utf-8"))
    made = fs.load_run("runs/tiny")
    result = made.evaluate(n_tasks=30)
    np.testing.assert_allclose(result.accuracies, before["accuracies"], atol=0.2)  # other threads, other last bits
    assert result.about["task_list_sha256"] == before["task_list_sha256"]
    assert result.about["checkpoint"] == f"best checkpoint, step {made.step}"
    assert (made.learner, made.dataset, made.settings["Experiment.seed"]) == ("PrototypicalNetwork", "glyphs", "1")
    assert repr(made) == f"<run runs/tiny: PrototypicalNetwork, best checkpoint, step {made.step}>"
    assert config.full_text() == ""  # no binding stays


def test_other_settings_go_on_top_of_a_run(copied):
    made = fs.load_run("runs/tiny", gin_files=["shots/5shot"], checkpoint="last")
    result = made.evaluate(2, gin_params=["Evaluation.split = 'val'"])
    assert len(result.accuracies) == 2 and (result.about["split"], result.about["k_shot"]) == ("val", 5)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fs.load_run("no"), FileNotFoundError, "must be a folder that .* wrote"),
        (lambda: fs.load_run("runs/tiny", checkpoint="first"), ValueError, "must be one of best, last"),
        (lambda: fs.load_run("runs/tiny", gin_params=["MAML.had = 1"]), ValueError, "Did you mean head"),
        (lambda: fs.load_run("runs/tiny").evaluate(1), ValueError, "Evaluation.n_tasks must be at least 2"),
        (lambda: fs.train([]), ValueError, "gin_files must name at least one"),
        (lambda: fs.train("no"), FileNotFoundError, "no such file. Received: 'no'"),
        (lambda: fs.train(FILES, [*SMALL, "SEED = 2"], "runs/tiny"), ValueError, "started with other settings"),
        (lambda: fs.export("runs/tiny", "exported/tiny"), FileExistsError, "overwrite"),
        (lambda: fs.load_exported("runs/tiny"), FileNotFoundError, "must be a folder that .* wrote"),
    ],
)
def test_what_is_wrong_is_an_error_that_says_so(copied, call, error, message):
    with pytest.raises(error, match=message):
        call()
    assert config.full_text() == ""


def test_training_again_goes_on_and_a_name_alone_will_do(copied, capfd):
    before = fs.load_run("runs/tiny", checkpoint="last").step
    made = fs.train(FILES, [*SMALL, "EPOCHS = 1"], "runs/tiny")
    assert made.step <= before == checkpoints.of_run("runs/tiny").steps()[-1]
    assert capfd.readouterr() == ("", "")


def kinds(report) -> list[str]:
    return [line.kind for line in report.lines if line.kind != "ok"]


def the_fault(report, kind: str = "fault"):
    (line,) = [line for line in report.lines if line.kind == kind]
    return line


def test_a_run_that_is_whole_has_no_fault(copied):
    report = run.examine("runs/tiny", "data")
    assert kinds(report) == [], report
    for said in (
        "no process is training", "PrototypicalNetwork on convnet4", "last checkpoint: step 10", "best checkpoint",
        "is the one that the run was trained on", "metrics.jsonl: 1 lines, to step 10", "over 30 tasks",
    ):  # fmt: skip
        assert said in str(report), said
    assert str(report).endswith("runs/tiny: 0 faults, 0 warnings")


def test_a_damaged_checkpoint_is_named_with_what_mends_it(copied):
    (state,) = (copied / "runs/tiny/best").glob("step-*/state.data*")
    state.write_bytes(state.read_bytes()[:-1] + b"\0")
    line = the_fault(run.examine("runs/tiny", "data"))
    assert re.search(r"best checkpoint runs/tiny/best/step-\d+ is not whole: state.data.* differs", line.what)
    assert "intact copy" in line.mend  # there is no other


def test_a_damaged_checkpoint_with_one_before_it_may_be_removed(copied):
    newest = copied / "runs/tiny/checkpoints/step-00000020"
    shutil.copytree(copied / "runs/tiny/checkpoints/step-00000010", newest)
    (newest / "manifest.json").write_text("{}", encoding="utf-8")
    line = the_fault(run.examine("runs/tiny", "data"))
    assert "manifest.json is damaged; training goes back to the one before" in line.what
    assert line.mend == "rm -r runs/tiny/checkpoints/step-00000020"


def test_another_data_set_or_none_is_told(copied):
    shutil.rmtree("data")
    line = the_fault(run.examine("runs/tiny", "data"))
    assert "No data set 'glyphs'" in line.what and "--data_dir" in line.mend
    tiny.write_patterns(copied / "data", name="glyphs", images=13)
    line = the_fault(run.examine("runs/tiny", "data"))
    assert re.search(r"another than the run was trained on: its fingerprint was \w+, now it is \w+", line.what)


def test_settings_that_were_changed_afterwards_are_told(copied):
    path = copied / "runs/tiny/config.gin"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("SEED = 1", "SEED = 2"), encoding="utf-8")
    line = the_fault(run.examine("runs/tiny", "data"))
    assert "Experiment.seed: 1 in the checkpoint, 2 now" in line.what and "config.gin" in line.mend
    path.write_text(text + "\nEpisodeConfig.n_ways = 5\n", encoding="utf-8")
    line = the_fault(run.examine("runs/tiny", "data"))
    assert "Did you mean n_way?" in line.what and "put config.gin back" in line.mend


def test_metrics_that_are_cut_or_damaged_are_told(copied):
    path = copied / "runs/tiny/metrics.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + '{"step": 2', encoding="utf-8")
    assert "last line is cut" in the_fault(run.examine("runs/tiny", "data"), "warning").what
    path.write_text("owls\n" + whole, encoding="utf-8")
    line = the_fault(run.examine("runs/tiny", "data"))
    assert "no JSON with a step: 1." in line.what and line.mend == "sed -i '1d' runs/tiny/metrics.jsonl"
    path.write_text(whole + whole, encoding="utf-8")
    assert "do not rise" in the_fault(run.examine("runs/tiny", "data")).what


def test_a_run_that_trains_now_or_has_not_begun_is_told(copied):
    with open("runs/tiny/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = run.examine("runs/tiny", "data")
    assert "is training in it now" in the_fault(report, "note").what
    shutil.rmtree("runs/tiny/checkpoints")
    assert "no checkpoint yet" in the_fault(run.examine("runs/tiny", "data"), "warning").what


def test_an_export_that_is_whole_has_no_fault_and_answers(copied):
    report = exported.examine("exported/tiny")
    assert kinds(report) == [], report
    for said in (
        "PrototypicalNetwork on convnet4, step", "any number of ways, images of 28 × 28 × 3", "all 18 functions",
        "5-way task of noise", "warm-up requests",
    ):  # fmt: skip
        assert said in str(report), said


def test_the_newest_version_is_the_one_that_is_looked_at(copied):
    shutil.copytree("exported/tiny", "exported/many/9")
    shutil.copytree("exported/tiny", "exported/many/10")
    shutil.rmtree("exported/many/10/assets")
    report = exported.examine("exported/many")
    assert report.about == "exported/many/10" and "no assets/metadata.json" in the_fault(report).what


def test_a_damaged_export_is_told_with_the_command_that_makes_it_anew(copied):
    again = "python -m tf_lwdgh.export --run_dir=<the run> --output=exported/tiny --overwrite"
    (data,) = (copied / "exported/tiny/variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:100])
    line = the_fault(exported.examine("exported/tiny"))
    assert "can't load it" in line.what and line.mend == again
    (copied / "exported/tiny/assets/metadata.json").write_text("{", encoding="utf-8")
    assert "is no JSON" in the_fault(exported.examine("exported/tiny")).what
    (copied / "exported/tiny/saved_model.pb").write_bytes(b"owls")
    assert the_fault(exported.examine("exported/tiny")).mend == again


def test_what_is_no_run_or_export_is_refused(copied):
    with pytest.raises(FileNotFoundError, match="--run_dir must be a folder"):
        run.examine("exported/tiny", "data")
    with pytest.raises(FileNotFoundError, match="--model must be a folder"):
        exported.examine("runs/tiny")
