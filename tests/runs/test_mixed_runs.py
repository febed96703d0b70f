# SPDX-License-Identifier: Apache-2.0
"""Runs on a mixture of two data sets with wrong labels: stop and resume, accuracy by set, other test sets."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest

from tests import tiny
from tf_lwdgh.data.image_source import ImageSource
from tf_lwdgh.outer.evaluation import Evaluation, EvaluationResult
from tf_lwdgh.runs.experiment import Experiment, parse_run
from tf_lwdgh.runs.judge import judge
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer
from tf_lwdgh.serving import saved_models

MIXED = (
    "DatasetConfig.name = ('patterns', 'small')",
    "DatasetConfig.shares = (1, 2)",
    "LabelNoise.share_of_labels = 0.3",
    "LabelNoise.share_of_tasks = 0.5",
    "EPOCHS = 2",
    "VAL_TASKS = 9",
    "convnet4.fused = False",  # its graphs are built in less time
    "convnet4.blocks = 1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with both data sets, of other sizes."""
    path = tmp_path_factory.mktemp("mixed")
    tiny.write_patterns(path / "data")
    tiny.write_patterns(path / "data", "small", classes=4, images=7, size=8)
    return path


def _train(folder, name, *gin_params, stop=lambda: False):
    trainer = Trainer(tiny.build(folder, *MIXED, *gin_params), str(folder / name))
    progress = Progress(total=8, done=trainer.at.step, tasks_per_step=3, stream=io.StringIO())
    trainer.run(stop=stop, progress=progress)
    return trainer


@pytest.fixture(scope="module")
def run(folder):
    _train(folder, "whole")
    return folder / "whole"


def _lines(run_dir):
    return [
        {k: v for k, v in line.items() if not k.startswith("speed/")}
        for line in read_metrics(run_dir)
    ]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit_whatever_the_storage(folder, run):
    asked = iter([False, False, True])
    assert _train(folder, "stopped", stop=lambda: next(asked)).at.step == 3
    _train(folder, "stopped", "PipelineConfig.storage = 'disk'")
    assert _lines(folder / "stopped") == _lines(run)


def test_validation_logs_each_set(run):
    judged = [line for line in _lines(run) if "val/accuracy" in line]
    assert [line["step"] for line in judged] == [4, 8]
    names = {k for line in judged for k in line if k.startswith("val/accuracy_")}
    assert names == {"val/accuracy_patterns", "val/accuracy_small"}
    for line in judged:  # so many of the nine tasks are of 'small'
        first, second = line["val/accuracy_patterns"], line["val/accuracy_small"]
        counts = [n for n in range(1, 9) if np.isclose(9 * line["val/accuracy"], (9 - n) * first + n * second)]
        assert counts


def test_a_checkpoint_says_what_was_mixed(folder, run):
    manifest = json.loads((run / "checkpoints/step-00000008/manifest.json").read_text())
    assert manifest["dataset"] == "patterns+small"
    assert manifest["datasets"]["small"]["share"] == pytest.approx(2 / 3)
    spec = tiny.build(folder, *MIXED).spec
    assert manifest["fingerprint"] == spec.fingerprint
    assert manifest["datasets"]["patterns"]["fingerprint"] == spec.specs[0].fingerprint


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        ("DatasetConfig.shares = (1, 1)", "patterns: was share 0.333333 .*, now share 0.5 with"),
        ("DatasetConfig.shares = (2, 4)", r"DatasetConfig.shares: was \(1, 2\), now \(2, 4\)"),
        ("LabelNoise.share_of_labels = 0.6", "LabelNoise.share_of_labels: was 0.3, now 0.6"),
    ],
)
def test_other_shares_are_refused_with_both_values(folder, run, binding, text):
    with pytest.raises(ValueError, match=f"(?s)was started .*{text}"):
        Trainer(tiny.build(folder, *MIXED, binding), str(run))


def test_a_share_of_labels_that_makes_none_wrong_is_refused_before_anything_runs(folder):
    with pytest.raises(ValueError, match="at least 0.166667 with 3 support labels"):
        tiny.build(folder, "LabelNoise.share_of_labels = 0.1")


def test_an_evaluation_gives_accuracy_by_set(folder, run):
    result, tasks = judge(
        run, data_dir=folder / "data", gin_params=["Evaluation.n_tasks = 20"], show=False
    )
    (path,) = (run / "evaluation").glob("test_*.json")
    content = json.loads(path.read_text())
    assert content["dataset"] == tasks.dataset == "patterns+small"
    assert set(content["by_dataset"]) == set(content["datasets"]) == {"patterns", "small"}
    for name, part in content["by_dataset"].items():
        of_set = [a for a, n in zip(content["accuracies"], content["datasets"]) if n == name]
        assert part["n_tasks"] == len(of_set)
        assert part["accuracy"] == pytest.approx(np.mean(of_set))
        assert part["interval95"] == pytest.approx(1.96 * np.std(of_set, ddof=1) / len(of_set) ** 0.5)
        assert f"\n  {name}: {100 * part['accuracy']:.2f} ± " in str(result)
    first_small = 2 * (6 + 4) + 6  # after both splits before, and the other set's test classes
    is_small = (tasks.class_ids >= first_small).all(axis=1)
    assert (is_small == (np.array(content["datasets"]) == "small")).all()


def test_a_run_is_judged_on_a_set_that_it_was_not_trained_on(folder, run, tmp_path):
    shutil.copytree(folder / "data/small", tmp_path / "other")
    gin_params = ["Evaluation.n_tasks = 4", "Evaluation.dataset = 'other'"]
    result, tasks = judge(run, data_dir=tmp_path, gin_params=gin_params, show=False)
    assert tasks.dataset == "small" and not result.datasets  # the name that the records have
    assert str(result).endswith("trained on patterns+small")
    (path,) = (run / "evaluation").glob("small_test_*.json")
    content = json.loads(path.read_text())
    assert content["trained_on"] == "patterns+small" and "by_dataset" not in content
    parse_run(run, ["DatasetConfig.name = 'other'", "DatasetConfig.shares = None"])
    alone = Experiment().build(tmp_path).spec
    assert tasks.fingerprint == alone.fingerprint
    assert type(Experiment().build(tmp_path).source("test")) is ImageSource


def test_several_other_sets_are_equally_often(folder, run):
    gin_params = ["Evaluation.n_tasks = 30", "Evaluation.dataset = ('small', 'patterns')"]
    result, tasks = judge(run, data_dir=folder / "data", gin_params=gin_params, show=False)
    assert tasks.dataset == "small+patterns"
    assert 5 <= result.by_dataset["small"]["n_tasks"] <= 25  # 15 ± 3.6 standard deviations
    with pytest.raises(ValueError, match="hold no name twice.*Evaluation.dataset = "):
        Evaluation(dataset=("a", "a"))


def test_a_missing_test_set_is_named(folder, run):
    with pytest.raises(FileNotFoundError, match="No data set 'none'"):
        judge(run, data_dir=folder / "data", gin_params=["Evaluation.dataset = 'none'"], show=False)


def test_one_task_of_a_set_has_no_interval():
    result = EvaluationResult(np.array([0.5, 0.25, 0.75]), np.zeros(3), {}, ("b", "a", "b"))
    assert result.by_dataset["a"] == {"accuracy": 0.25, "interval95": None, "n_tasks": 1}
    assert list(result.by_dataset) == ["a", "b"]


def test_a_mixed_run_is_exported(run, tmp_path):
    module = saved_models.from_run(str(run), "last")
    metadata = json.loads(module.metadata)
    assert metadata["dataset"] == "patterns+small"
    assert len(metadata["dataset_fingerprint"]) == 64
    saved_models.save(module, str(tmp_path / "out"))
    assert (tmp_path / "out/saved_model.pb").exists()
