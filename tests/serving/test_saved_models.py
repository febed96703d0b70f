# SPDX-License-Identifier: Apache-2.0
"""Saving: whole folders or none, and what a run's settings make of an export."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.learners import MAML, MetaSGD
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones
from tf_lwdgh.runs.checkpoints import CheckpointFolder, meta_variables
from tf_lwdgh.serving import module as serving
from tf_lwdgh.serving import saved_models


@pytest.fixture(scope="module")
def small_module() -> serving.ServingModule:
    model = backbones.convnet4(image_size=4, channels=1, n_way=2, filters=2, blocks=1)
    images = ImageConfig(image_size=4, channels=1)
    return serving.ServingModule(MetaParameters(model, MAML()), images, inner_steps=1)


def test_an_export_replaces_another_only_when_told_to(small_module, tmp_path):
    output = tmp_path / "models" / "one"
    saved_models.save(small_module, str(output))
    before = (output / "fingerprint.pb").stat().st_ino
    with pytest.raises(FileExistsError, match="pass --overwrite.*models/one"):
        saved_models.save(small_module, str(output))
    assert (output / "fingerprint.pb").stat().st_ino == before
    saved_models.save(small_module, str(output), overwrite=True)
    assert (output / "fingerprint.pb").stat().st_ino != before
    assert os.listdir(tmp_path / "models") == ["one"]


def test_what_is_no_saved_model_is_never_overwritten(small_module, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="is no SavedModel"):
        saved_models.save(small_module, str(tmp_path), overwrite=True)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_empty_folder_is_filled(small_module, tmp_path):
    saved_models.save(small_module, str(tmp_path))
    assert (tmp_path / "saved_model.pb").exists()


def test_a_failed_export_leaves_nothing(small_module, tmp_path, monkeypatch):
    def fail(module, path, signatures):
        os.makedirs(path)
        with open(os.path.join(path, "saved_model.pb"), "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        saved_models.save(small_module, str(tmp_path / "one"))
    assert os.listdir(tmp_path) == []


SETTINGS = """
DatasetConfig.name = 'glyphs'
Experiment.backbone = @convnet4
Experiment.learner = @MAML()
MAML.inner_loop = @InnerLoop()
MAML.batch_norm = %BATCH_NORM
BATCH_NORM = 'transductive'
InnerLoop.steps = 2
convnet4.filters = 4
convnet4.blocks = 1
ImageConfig.image_size = 8
"""


@pytest.fixture
def run_dir(tmp_path):
    """A run folder with checkpoints of steps 3 (best) and 8 (last), whose weights are the step."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.gin").write_text(SETTINGS)
    model = backbones.convnet4(image_size=8, filters=4, blocks=1)
    learned = meta_variables(MetaParameters(model, MAML()))
    for name, step in (("best", 3), ("checkpoints", 8)):
        model.layers[-1].bias.assign([float(step)] * 5)
        manifest = {"dataset": "glyphs", "fingerprint": "abc"}
        CheckpointFolder(folder / name).save(step, learned, manifest)
    return str(folder)


@pytest.mark.parametrize(("checkpoint", "step"), [("best", 3), ("last", 8)])
def test_a_run_is_exported_with_its_settings_and_the_chosen_checkpoint(run_dir, checkpoint, step):
    module = saved_models.from_run(run_dir, checkpoint)
    told = json.loads(module.metadata)
    assert (told["checkpoint"], told["step"]) == (checkpoint, step)
    assert (told["dataset"], told["dataset_fingerprint"]) == ("glyphs", "abc")
    assert (told["learner"], told["inner_steps"]) == ("MAML", 10)
    np.testing.assert_array_equal(module.network[-1], [step] * 5)


def test_inner_steps_of_an_export_are_the_evaluations(run_dir):
    module = saved_models.from_run(run_dir, "best", ["Evaluation.inner_steps = 4"])
    assert json.loads(module.metadata)["inner_steps"] == 4
    module = saved_models.from_run(run_dir, "best", ["Evaluation.inner_steps = None"])
    assert json.loads(module.metadata)["inner_steps"] == 2


# (the run's BatchNorm, bindings at the export, --batch_norm) -> what is served
SERVED = [
    ("transductive", [], None, "inductive"),
    ("transductive", [], "as_trained", "transductive"),
    pytest.param("transductive", [], "global", "global", marks=pytest.mark.slow),
    pytest.param("transductive", ["BATCH_NORM = 'transductive'"], None, "transductive", marks=pytest.mark.slow),
    pytest.param("transductive", ["MAML.batch_norm='global'"], None, "global", marks=pytest.mark.slow),
    pytest.param("transductive", ["Evaluation.inner_steps = 1"], None, "inductive", marks=pytest.mark.slow),
    pytest.param("global", [], None, "global", marks=pytest.mark.slow),
    ("global", [], "transductive", "transductive"),
    pytest.param("inductive", [], None, "inductive", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("trained", "bindings", "asked", "served"), SERVED)
def test_an_export_is_inductive_unless_told_otherwise(run_dir, trained, bindings, asked, served):
    path = os.path.join(run_dir, "config.gin")
    with open(path, "w", encoding="utf-8") as file:
        file.write(SETTINGS.replace("'transductive'", f"'{trained}'"))
    told = json.loads(saved_models.from_run(run_dir, "best", bindings, batch_norm=asked).metadata)
    assert (told["trained_batch_norm"], told["batch_norm"]) == (trained, served)
    assert told["predictions_depend_on_the_other_queries"] == (served == "transductive")


def test_batch_norm_told_twice_or_unknown_is_refused(run_dir):
    with pytest.raises(ValueError, match="give one of them.*=inductive and --gin_param=.MAML.batch"):
        saved_models.from_run(run_dir, "best", ["MAML.batch_norm = 'inductive'"], batch_norm="inductive")
    with pytest.raises(ValueError, match="--batch_norm must be one of .*as_trained. Received: 'x'"):
        saved_models.from_run(run_dir, "best", batch_norm="x")


def test_a_learner_s_own_parameters_are_exported(tmp_path):
    text = SETTINGS.replace("MAML", "MetaSGD").replace("'transductive'", "'inductive'")
    (tmp_path / "config.gin").write_text(text)
    parameters = MetaParameters(backbones.convnet4(image_size=8, filters=4, blocks=1), MetaSGD())
    for i, variable in enumerate(parameters.own.values()):
        variable.assign(tf.fill(variable.shape, float(i)))
    learned = meta_variables(parameters)
    manifest = {"dataset": "glyphs", "fingerprint": "abc"}
    CheckpointFolder(tmp_path / "best").save(3, learned, manifest)
    module = saved_models.from_run(str(tmp_path), "best")
    assert len(module.own) > 3
    for i, value in enumerate(module.own.values()):
        np.testing.assert_array_equal(value, np.full(value.shape, i))
    told = json.loads(module.metadata)
    assert told["own_parameters"] == {n: v.shape.as_list() for n, v in module.own.items()}


def test_a_run_without_the_checkpoint_is_refused(run_dir, tmp_path):
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.gin").write_text(SETTINGS)
    with pytest.raises(FileNotFoundError, match="no best checkpoint in .*young"):
        saved_models.from_run(str(tmp_path / "young"), "best")
    with pytest.raises(ValueError, match="one of best, last. Received: 'newest'"):
        saved_models.from_run(run_dir, "newest")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        saved_models.from_run(str(tmp_path / "nowhere"), "best")
