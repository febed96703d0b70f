# SPDX-License-Identifier: Apache-2.0
"""A run that starts from what another run, an export or a file of Keras's has learned."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.runs import start
from tf_lwdgh.runs.checkpoints import of_run
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer
from tf_lwdgh.serving import saved_models

# Its graphs are built in less time.
TEXT = f"{tiny.TINY}convnet4.fused = False\nconvnet4.blocks = 1\n"
CLASSIFIER = TEXT.replace("learners/maml", "learners/classifier")
SHORT = ["EPOCHS = 1", "Classifier.batch_size = 12"]
BODY = 4  # variables of the network but for its head: kernel, bias, gamma, beta
AVERAGES = 2


def assemble(folder, *params, text=TEXT):
    config.parse([tiny.write_gin(folder, text)], params)
    return Experiment().build(folder / "data")


def train(folder, name, *params, text=TEXT, stop=lambda: False):
    trainer = Trainer(assemble(folder, *params, text=text), str(folder / name))
    total = trainer.assembly.total_steps
    progress = Progress(total=total, done=trainer.at.step, tasks_per_step=1, stream=io.StringIO())
    trainer.run(stop=stop, progress=progress)
    return trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("start")
    tiny.write_patterns(path / "data")
    return path


@pytest.fixture(scope="module")
def pretrained(folder):
    """A classifier's run, <folder>/pretrained, with the values at its end."""
    trainer = train(folder, "pretrained", *SHORT, text=CLASSIFIER)
    parameters = trainer.assembly.parameters
    names = [*parameters.names, *parameters.model.state_names]
    variables = [*parameters.variables_trained, *parameters.model.state_variables]
    config.clear()
    return {name: v.numpy() for name, v in zip(names, variables)}


@pytest.fixture(scope="module")
def exported(folder, pretrained):
    """That run's export, <folder>/exported."""
    saved_models.save(saved_models.from_run(str(folder / "pretrained"), "last"), str(folder / "exported"))
    config.clear()


def taken(assembly, values) -> set[str]:
    """The network's variables and averages that are as they were learned."""
    model = assembly.parameters.model
    pairs = [*zip(model.names, model.variables), *zip(model.state_names, model.state_variables)]
    return {n for n, v in pairs if n in values and np.array_equal(v.numpy(), values[n])}


def start_from(folder, name, path, *params, which="last"):
    where = [f"Experiment.start = {str(path)!r}", f"Experiment.start_checkpoint = {which!r}"]
    return Trainer(assemble(folder, *where, *params), str(folder / name))


def test_a_run_gives_its_network_and_not_a_head_that_it_never_trained(folder, pretrained):
    trainer = start_from(folder, "from_run", folder / "pretrained")
    found = taken(trainer.assembly, pretrained)
    assert len(found) == BODY + AVERAGES and not any(name.startswith("head") for name in found)
    told = trainer._manifest()["start"]
    assert (told["kind"], told["checkpoint"], told["step"]) == ("run", "last", 4)
    assert (told["learner"], told["loaded"]) == ("Classifier", BODY + AVERAGES)
    assert told["not_loaded"] == dict.fromkeys(["head/kernel", "head/bias"], "was not trained there")
    assert {"classifier/kernel", "classifier/bias"} <= set(told["not_used"])
    line = start.describe(told)
    assert line.startswith(f"start: {BODY + AVERAGES} variables from") and "head/kernel" in line


def test_own_parameters_are_taken_where_they_fit(folder, pretrained):
    text = CLASSIFIER.replace("learners/classifier", "learners/baseline")
    where = [f"Experiment.start = '{folder / 'pretrained'}'", "Experiment.start_checkpoint = 'last'"]
    trainer = Trainer(assemble(folder, *where, text=text), str(folder / "same_classes"))
    own = trainer.assembly.parameters.own
    for name in ("classifier/kernel", "classifier/bias"):
        np.testing.assert_array_equal(own[name].numpy(), pretrained[name])


def test_an_export_and_files_of_keras_give_the_same(folder, pretrained, exported):
    source = start_from(folder, "again", folder / "pretrained").assembly.keras_model
    source.save(folder / "network.keras")
    source.save_weights(folder / "network.weights.h5")
    for i, name in enumerate(("exported", "network.keras", "network.weights.h5")):
        trainer = start_from(folder, f"from_{i}", folder / name)
        found = taken(trainer.assembly, pretrained)
        assert len(found) == BODY + AVERAGES, name
        assert trainer._manifest()["start"]["kind"] == ("export" if i == 0 else "file of Keras's")
        assert all(np.isfinite(w).all() for w in trainer.assembly.keras_model.get_weights())


def test_a_file_of_keras_with_another_head_leaves_the_head(folder, pretrained):
    wide = assemble(folder, "N_WAY = 4").keras_model
    wide.save_weights(folder / "wide.weights.h5")
    trainer = start_from(folder, "from_wide", folder / "wide.weights.h5")
    told = trainer._manifest()["start"]
    assert (told["loaded"], set(told["not_loaded"])) == (BODY + AVERAGES, {"head/kernel", "head/bias"})
    ours = trainer.assembly.keras_model.get_weights()
    assert all(np.isfinite(w).all() for w in ours)
    for a, b in zip(ours[:-2], wide.get_weights()[:-2]):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_started_run_goes_on_to_the_bit_and_never_starts_again(folder, pretrained):
    where = [
        f"Experiment.start = '{folder / 'moved'}'", "Experiment.start_checkpoint = 'last'", "EPOCHS = 2"
    ]  # fmt: skip
    (folder / "pretrained").rename(folder / "moved")
    try:
        whole = train(folder, "whole", *where)
        asked = iter([False] * 2 + [True])
        train(folder, "stopped", *where, stop=lambda: next(asked))
    finally:
        (folder / "moved").rename(folder / "pretrained")
    again = train(folder, "stopped", *where)  # what it started from is gone
    pairs = zip(again.assembly.parameters.variables_trained, whole.assembly.parameters.variables_trained)
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    manifest = of_run(folder / "stopped").newest()
    assert manifest["step"] == 8 and manifest["start"]["learner"] == "Classifier"
    assert "Experiment.start = " in (folder / "stopped/config.gin").read_text()
    with pytest.raises(ValueError, match="other settings:\n  Experiment.start: was .*now None"):
        Trainer(assemble(folder, "EPOCHS = 2"), str(folder / "stopped"))


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        ("nowhere", [], FileNotFoundError, "Experiment.start: nothing is there"),
        ("data", [], ValueError, "must be a run's folder, an export's folder, or a file that ends in"),
        ("tiny.gin", [], ValueError, "must be a run's folder"),
        ("broken.keras", [], ValueError, "Keras can't read the file"),
        ("broken.weights.h5", [], ValueError, "Keras can't read the file"),
        ("pretrained", ["convnet4.filters = 5"], ValueError, "'conv1/kernel' of shape .3, 3, 3, 5. has"),
        ("pretrained", ["convnet4.blocks = 2"], ValueError, "'conv2/kernel' of shape .* is not there"),
        ("exported", ["convnet4.filters = 5"], ValueError, "'conv1/kernel' of shape"),
        ("pretrained", ["IMAGE_SIZE = 16"], None, ""),
    ],
)
def test_what_does_not_fit_is_refused_early(folder, exported, name, params, error, message):
    for broken in ("broken.keras", "broken.weights.h5"):
        (folder / broken).write_bytes(b"no such thing")
    if error is None:
        trainer = start_from(folder, f"sized{params}", folder / name, *params)
        assert trainer._manifest()["start"]["loaded"] == BODY + AVERAGES
        return
    with pytest.raises(error, match=message) as raised:
        start_from(folder, f"refused_{name}", folder / name, *params)
    assert "Experiment.start" in str(raised.value) and "\n" not in str(raised.value)
    assert not (folder / f"refused_{name}").exists()


def test_a_run_without_that_checkpoint_names_the_other(folder, pretrained):
    shutil.copytree(folder / "pretrained", folder / "unjudged")
    shutil.rmtree(folder / "unjudged/best")
    with pytest.raises(FileNotFoundError, match="try Experiment.start_checkpoint = 'last'"):
        start_from(folder, "from_unjudged", folder / "unjudged", which="best")
    with pytest.raises(ValueError, match="Experiment.start_checkpoint must be one of best, last"):
        start_from(folder, "from_unjudged", folder / "unjudged", which="newest")


def test_training_a_classifier_goes_on_to_the_bit_and_learns(folder, pretrained):
    asked = iter([False] * 1 + [True])
    train(folder, "half", *SHORT, text=CLASSIFIER, stop=lambda: next(asked))
    again = train(folder, "half", *SHORT, text=CLASSIFIER)
    for name, v in zip(again.assembly.parameters.names, again.assembly.parameters.variables_trained):
        np.testing.assert_array_equal(v.numpy(), pretrained[name])
    assert [line["step"] for line in read_metrics(folder / "half")] == [1, 2, 3, 4]
    long = train(folder, "long", "EPOCHS = 10", "Classifier.batch_size = 24", text=CLASSIFIER)
    lines = read_metrics(folder / "long")
    assert long.assembly.training_episode.n_way == 6 == long.assembly.learner.n_classes
    assert lines[-1]["train/loss"] < 0.5 * lines[0]["train/loss"]
    assert lines[-1]["val/accuracy"] > 0.5  # 3-way
