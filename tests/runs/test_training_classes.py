# SPDX-License-Identifier: Apache-2.0
"""A run whose learner owns something for each training class, looked at where those can't be counted."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tf_lwdgh
from tests import tiny
from tests.runs.test_start import TEXT, train
from tests.studies import probed_runs
from tf_lwdgh import config
from tf_lwdgh.examinations import run as examination
from tf_lwdgh.runs.checkpoints import CheckpointError
from tf_lwdgh.runs.experiment import from_run
from tf_lwdgh.runs.judge import judge, load_checkpoint
from tf_lwdgh.studies.probe import probe

DYNAMIC = TEXT.replace("learners/maml", "learners/dynamic_net")
SMALL = ["EPOCHS = 1", "DynamicNet.novel_ways = 2", "DynamicNet.base_ways = 2"]
N_CLASSES = 6
FEW = ["Evaluation.n_tasks = 4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two data sets, and a run of DynamicNet, whose parameters are <folder>/learned.npz."""
    path = tmp_path_factory.mktemp("training_classes")
    tiny.write_patterns(path / "data", classes=N_CLASSES)
    tiny.write_patterns(path / "other", "other", classes=4)
    trained = train(path, "run", *SMALL, text=DYNAMIC).assembly.parameters
    np.savez(path / "learned.npz", **{name: v.numpy() for name, v in trained.own.items()})
    config.clear()
    return path


def judged(folder, *params, name="run", **settings):
    told = {"data_dir": folder / "data", "which": "last", "show": False, **settings}
    return judge(folder / name, gin_params=[*FEW, *params], **told)[0]


def test_what_it_has_learned_is_there_for_test_tasks(folder):
    result = judged(folder)
    assert len(result.accuracies) == 4 and np.isfinite(result.losses).all()
    assert result.mean > 0.5  # 3-way
    assembly = from_run(folder / "run")
    load_checkpoint(assembly, folder / "run", "last")
    own, learned = assembly.parameters.own, np.load(folder / "learned.npz")
    assert set(own) == set(learned) and own["memory/keys"].shape[0] == N_CLASSES == assembly.learner.n_classes
    for name, variable in own.items():
        np.testing.assert_array_equal(variable.numpy(), learned[name])
    assert set(assembly.parameters.names) == set(learned)


def test_it_is_judged_on_other_data_sets_without_its_own(folder):
    result = judged(folder, "Evaluation.dataset = 'other'", data_dir=folder / "other")
    assert (result.about["dataset"], result.about["trained_on"]) == ("other", "patterns")
    assert len(result.accuracies) == 4 and np.isfinite(result.losses).all()


def test_its_export_and_the_run_in_python_answer_alike(folder):
    exported = tf_lwdgh.export(folder / "run", folder / "exported", checkpoint="last")
    model = tf_lwdgh.load_exported(exported)
    made = tf_lwdgh.load_run(folder / "run", data_dir=folder / "data", checkpoint="last")
    assert made.learner == model.metadata["learner"] == "DynamicNet"
    assert model.metadata["own_parameters"]["memory/keys"][0] == N_CLASSES
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), np.uint8), np.int32([0, 1, 2, 3] * 2)
    found = model.predict(model.adapt(images, labels), images)
    assert found["probabilities"].shape == (8, 4) and np.isfinite(found["probabilities"]).all()
    here = made.adapt(images, labels).predict(images)
    np.testing.assert_allclose(here["probabilities"], found["probabilities"], atol=1e-6)
    np.testing.assert_array_equal(made.evaluate(4).accuracies, judged(folder).accuracies)


def test_the_doctor_finds_it_whole_without_its_data_set(folder):
    report = examination.examine(str(folder / "run"), str(folder / "other"))
    (fault,) = [line.what for line in report.lines if line.kind == "fault"]
    assert "No data set 'patterns'" in fault and "last checkpoint: step 4, every file" in str(report)


def test_a_run_of_another_learner_does_not_say_how_many_and_is_named(folder):
    probed_runs.write_run(folder, "maml")
    where = re.escape(str(folder / "maml" / "checkpoints"))
    with pytest.raises(CheckpointError, match=f"DynamicNet needs 'memory/keys', which is not there in .*{where}"):
        judged(folder, name="maml", gin_files=["gin/learners/dynamic_net.gin"])


def test_a_number_bound_by_hand_must_be_the_runs(folder):
    where = re.escape(str(folder / "run" / "checkpoints"))
    rule = f"{where}.*DynamicNet.n_classes must be that of the training classes, {N_CLASSES}.*= 7"
    assembly = from_run(folder / "run", ["DynamicNet.n_classes = 7"])
    with pytest.raises(CheckpointError, match=rule):
        load_checkpoint(assembly, folder / "run", "last")


def test_its_objective_is_of_training_classes_alone(folder):
    measured = probe(folder / "run", data_dir=folder / "data", steps=2)
    assert np.isfinite(measured.losses).all() and "memory/keys" in measured.units
    with pytest.raises(ValueError, match=r"split must be 'train' for a run of DynamicNet.*split = 'val', run '.*run'"):
        probe(folder / "run", data_dir=folder / "data", split="val")
