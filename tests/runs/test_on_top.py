# SPDX-License-Identifier: Apache-2.0
"""Other learners on what a run has learned, without training: judged and exported."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import tiny
from tests.runs.test_start import CLASSIFIER, SHORT, assemble, train
from tf_lwdgh import config
from tf_lwdgh.runs.checkpoints import CheckpointError
from tf_lwdgh.runs.experiment import from_run
from tf_lwdgh.runs.judge import judge, load_checkpoint
from tf_lwdgh.serving import saved_models

BASELINES = {
    "simple_shot": "SimpleShot",
    "baseline": "Baseline",
    "baseline_pp": "BaselinePP",
    "logistic_regression": "LogisticRegression",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two data sets, and runs of a classifier and of MAML."""
    path = tmp_path_factory.mktemp("on_top")
    tiny.write_patterns(path / "data")
    tiny.write_patterns(path / "data", "other", classes=4)
    train(path, "classifier", *SHORT, text=CLASSIFIER)
    train(path, "maml", "EPOCHS = 1")
    config.clear()
    return path


def judged(folder, run, *gin_files, params=()):
    return judge(
        folder / run, data_dir=folder / "data", gin_files=gin_files, which="last", show=False,
        gin_params=["Evaluation.n_tasks = 4", *params],
    )  # fmt: skip


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_judges_a_classifiers_network(folder, name):
    few = ["Baseline.epochs = 2"] if name == "baseline" else []
    result, tasks = judged(folder, "classifier", f"gin/learners/{name}.gin", params=few)
    about = result.about
    assert (about["learner"], about["trained_learner"]) == (BASELINES[name], "Classifier")
    assert (about["inner_steps"], about["batch_norm"]) == (None, "global")
    (written,) = (folder / "classifier/evaluation").glob(f"{BASELINES[name]}_test_3way1shot_*.json")
    content = json.loads(written.read_text(encoding="utf-8"))
    assert content["on_top"] == [f"gin/learners/{name}.gin"] and len(content["accuracies"]) == 4


def test_the_runs_own_result_and_those_of_other_settings_stay_apart(folder, tmp_path):
    variant = tmp_path / "unnormalised.gin"
    variant.write_text("include 'gin/learners/simple_shot.gin'\nSimpleShot.transform = 'none'\n")
    judged(folder, "classifier")
    judged(folder, "classifier", "gin/learners/simple_shot.gin")
    judged(folder, "classifier", str(variant))
    names = {p.name.partition("_test_")[0] for p in (folder / "classifier/evaluation").iterdir()}
    assert {"SimpleShot", "SimpleShot_unnormalised"} <= names
    assert any(p.name.startswith("test_") for p in (folder / "classifier/evaluation").iterdir())


def test_the_centre_is_the_mean_feature_that_the_run_has_kept(folder):
    files = ["gin/learners/simple_shot.gin"]
    assembly = from_run(folder / "classifier", gin_files=files, data_dir=folder / "data")
    load_checkpoint(assembly, folder / "classifier", "last")
    mean, variance = assembly.parameters.model.parts["features"].state_variables
    assert mean.numpy().any() and not np.array_equal(variance.numpy(), np.ones_like(variance))
    source = assemble(folder, *SHORT, text=CLASSIFIER)
    load_checkpoint(source, folder / "classifier", "last")
    kept = source.parameters.model.parts["features"].state_variables[0]
    np.testing.assert_array_equal(mean.numpy(), kept.numpy())
    assert not assembly.parameters.own and len(source.parameters.own) == 2


@pytest.mark.parametrize(
    ("run", "fragment", "needs"),
    [
        ("classifier", "meta_baseline", "MetaBaseline needs 'scale'"),
        ("maml", "simple_shot", "SimpleShot needs 'features/norm/moving_mean'"),
    ],
)
def test_what_a_run_has_not_learned_is_named(folder, run, fragment, needs):
    with pytest.raises(CheckpointError, match=f"{needs} .* is not there .*Experiment.start"):
        judged(folder, run, f"gin/learners/{fragment}.gin")


def test_a_learner_that_needs_nothing_judges_any_run(folder):
    params = ["SimpleShot.transform = 'l2'", "Evaluation.n_way = 5"]
    result, _ = judged(folder, "maml", "gin/learners/simple_shot.gin", params=params)
    assert result.about["trained_learner"] == "MAML" and result.about["n_way"] == 5


def test_a_data_set_of_other_classes_is_judged_too(folder):
    result, _ = judged(folder, "classifier", params=["Evaluation.dataset = 'other'"])
    assert result.about["trained_on"] == "patterns" and result.about["learner"] == "Classifier"


def test_a_baseline_is_exported_on_top_of_a_run(folder):
    module = saved_models.from_run(
        str(folder / "classifier"), "last", gin_files=["gin/learners/logistic_regression.gin"]
    )
    told = json.loads(module.metadata)
    assert told["learner"] == "LogisticRegression" and told["own_parameters"] == {}
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), np.uint8)
    found = module.adapt_and_predict(images, np.int32([0, 1, 2, 3] * 2), images)
    assert found["probabilities"].shape == (8, 4)
    assert (found["labels"].numpy() == [0, 1, 2, 3] * 2).all()  # what it has just learned


def test_a_mixtures_classes_are_numbered_set_by_set(folder):
    both = ["DatasetConfig.name = ('patterns', 'other')", "Classifier.batch_size = 12"]
    assembly = assemble(folder, *both, text=CLASSIFIER)
    assert assembly.learner.n_classes == 10
    assert assembly.training_episode.n_way == 4  # the smaller set's
    assert assembly.parameters.own["classifier/kernel"].shape[-1] == 10


def test_the_number_of_classes_is_checked_before_anything_runs(folder):
    with pytest.raises(ValueError, match="Classifier.n_classes must be that of the training classes, 6"):
        assemble(folder, "Classifier.n_classes = 7", text=CLASSIFIER)
