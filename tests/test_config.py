# SPDX-License-Identifier: Apache-2.0
"""Wrong gin names and values get one clear message that says what was probably meant."""

from __future__ import annotations

import re

import keras
import pytest

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.runs import experiment
from tf_lwdgh.runs.experiment import Experiment


@pytest.fixture
def gin_file(tmp_path):
    return tiny.write_gin(tmp_path)


@pytest.mark.parametrize(
    "binding, message",
    [
        ("EpisodeConfg.n_way = 5", "Did you mean EpisodeConfig"),
        ("EpisodeConfig.n_ways = 5", "Did you mean n_way"),
        ("convnet4.filter = 5", "Did you mean filters"),
        ("Experiment.aggregator = @LWDG()", "Did you mean LWDGH"),
        ("EPOCH = 5", "No setting takes its value from the macro EPOCH. Did you mean EPOCHS"),
        ("EpisodeConfig.k_shot = %K_SHOTS", "No value for the macro %K_SHOTS. Did you mean K_SHOT"),
        ("N_WAY =", "--gin_param='N_WAY ='"),
        ("N_WAY", "--gin_param='N_WAY'"),
    ],
)
def test_a_wrong_binding_is_explained(gin_file, binding, message):
    with pytest.raises(ValueError) as error:
        config.parse([gin_file], [binding])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_line_of_a_file_is_shown_with_its_place(tmp_path):
    path = tiny.write_gin(tmp_path, "\nEpisodeConfig.n_ways = 5\n")
    with pytest.raises(ValueError, match=r'Did you mean n_way\?\n.*tiny.gin", line 2'):
        config.parse([path])


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="--gin_file: no such file. Received: 'nope.gin'"):
        config.parse(["nope.gin"])


def test_a_binding_that_nothing_uses_is_refused(gin_file, tmp_path):
    tiny.build(tmp_path, "Mean.unit = 'layer'")
    with pytest.raises(ValueError, match="nothing in this experiment uses Mean.unit"):
        experiment.refuse_idle_bindings(["Mean.unit = 'layer'", "LWDGH.unit = 'layer'"])


def test_settings_hold_defaults_and_macros_as_values(tmp_path):
    tiny.build(tmp_path, "K_SHOT = 2")
    settings = config.settings()
    assert settings["EpisodeConfig.k_shot"] == "2"
    assert settings["LWDGH.temperature"] == "1.0"
    assert not any("%" in value for value in settings.values())


@pytest.mark.parametrize(
    "binding, message",
    [
        ("N_WAY = 7", "split 'train' of data set 'patterns' has 6.*EpisodeConfig.n_way = 7"),
        ("N_QUERY = 12", "class 'train-0' has 12.*EpisodeConfig.n_query = 12"),
        ("IMAGE_SIZE = 3", "at least 4 × 4 pixels.*ImageConfig.image_size"),
        ("INNER_LR = -1", "InnerLoop.inner_lr must be >= 0"),
        ("INNER_LR = {'hed': 0.1}", "every expression must match a variable"),
        ("DatasetConfig.name = 'nope'", "No data set 'nope' .DatasetConfig.name.*found there: patterns"),
        ("Experiment.aggregator = @LWDGH", "Experiment.aggregator must be a ready object"),
        ("Experiment.learner = @LWDGH()", "Experiment.learner must be a ready object.*@MAML()"),
        ("Experiment.explore = @LWDGH()", "Experiment.explore must be @ExploreExploit()"),
        ("MAML.inner_loop = @InnerLoop", "MAML.inner_loop must be a ready object, @InnerLoop()"),
        ("BATCH_NORM = 'local'", "MAML.batch_norm must be one of transductive, inductive, global"),
        ("Experiment.backbone = @convnet4()", "Experiment.backbone must be a maker"),
        ("SEED = 1.5", "Experiment.seed must be an integer"),
        ("EPOCHS = 0", "OuterLoop.epochs must be at least 1"),
        ("TrainerConfig.log_every = 0", "TrainerConfig.log_every must be an integer of at least 1"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_any_training(tmp_path, binding, message):
    from tf_lwdgh.runs.config import TrainerConfig

    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tiny.build(tmp_path, binding)
        TrainerConfig()


def test_a_data_set_that_is_not_chosen_is_asked_for(tmp_path):
    text = tiny.TINY.replace("DatasetConfig.name = 'patterns'", "")
    config.parse([tiny.write_gin(tmp_path, text)])
    with pytest.raises(ValueError, match="DatasetConfig.name must be .* Received: nothing"):
        Experiment().build(tmp_path)


def test_without_data_an_experiment_is_built_but_has_no_images(tmp_path):
    config.parse([tiny.write_gin(tmp_path)])
    assembly = Experiment().build(None)
    assert assembly.keras_model.name == "convnet4"
    with pytest.raises(ValueError, match="give a --data_dir"):
        assembly.source("train")


def test_the_seed_fixes_the_initial_weights(tmp_path):
    values = [tiny.build(tmp_path, f"SEED = {seed}").keras_model.get_weights()[0] for seed in (1, 1, 2)]
    assert (values[0] == values[1]).all() and not (values[0] == values[2]).all()


def test_an_experiment_built_again_has_the_same_variable_names(tmp_path):
    first = tiny.build(tmp_path).keras_model
    keras.layers.Dense(1)  # takes a name that Keras makes up
    second = tiny.build(tmp_path).keras_model
    assert [v.path for v in first.variables] == [v.path for v in second.variables]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A = %A\nInnerLoop.steps = %A\n", "a macro must not refer to itself. Received: A = %A"),
        (b"A = %B\nB = %A\nInnerLoop.steps = %A\n", "refer to itself. Received: A = %B = %A"),
        (b"include 'self.gin'\n", "must not include itself. Received: self.gin includes self.gin"),
        (b"\x80\x81\xff\x00", "must be a text file in UTF-8. Received: .*self.gin"),
        (b"InnerLoop.inner_lr = {'a': 1\n", "quote or bracket not closed"),
        (b"InnerLoop.memory = 'store\n", r"Unable to parse value. \(self.gin, line 1\)"),
    ],
)
def test_a_gin_file_that_is_none_is_refused_in_words(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "self.gin").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        config.parse(["self.gin"])


def test_two_files_that_include_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.gin").write_text("include 'b.gin'\n", encoding="utf-8")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Received: a.gin includes b.gin includes a.gin"):
        config.parse(["a.gin"])


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("EPOCHS = 'x'", "OuterLoop.epochs must be an integer. Received: OuterLoop.epochs = 'x'"),
        ("EPOCHS = None", "OuterLoop.epochs must be an integer. Received: OuterLoop.epochs = None"),
        ("EPOCHS = [1]", "OuterLoop.epochs must be an integer"),
        ("EPOCHS = 1.5", "OuterLoop.epochs must be an integer. Received: OuterLoop.epochs = 1.5"),
        ("InnerLoop.second_order = 'yes'", "InnerLoop.second_order must be True or False"),
        ("INNER_LR = {}", "InnerLoop.inner_lr must be a rate or a mapping with at least one"),
        ("MAML.inner_loop = 5", "MAML.inner_loop must be a ready object, @InnerLoop()"),
        ("IMAGE_SIZE = 1000000000", "ImageConfig.image_size must be an integer from 1 to 4096"),
        ("convnet4.filters = 'x'", "convnet4.filters must be an integer. Received: .* = 'x'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_binding(tmp_path, binding, message):
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        tiny.build(tmp_path, binding)
