# SPDX-License-Identifier: Apache-2.0
"""A learner's own meta-parameters in a run: kept, gone on with to the bit, and evaluated."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny, toy_learners
from tf_lwdgh.runs import judge as judging
from tf_lwdgh.runs.checkpoints import CheckpointError, CheckpointFolder
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer

LEARNER = "Experiment.learner = @Centres()"
START = 1.5  # of log_scale


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    tiny.write_patterns(path / "data")
    return path


def train(folder, name, *params, learner=LEARNER, stop=lambda: False):
    assembly = tiny.build(folder, learner, "OUTER_LR = 0.05", *params)
    trainer = Trainer(assembly, str(folder / name))
    progress = Progress(total=12, done=trainer.at.step, tasks_per_step=3, stream=io.StringIO())
    trainer.run(stop=stop, progress=progress)
    return assembly


@pytest.fixture(scope="module")
def whole(folder):
    """The assembly of a run of 12 steps in <folder>/whole that nothing interrupted."""
    return train(folder, "whole")


def lines(run_dir):
    return [
        {k: v for k, v in line.items() if not k.startswith("speed/")} for line in read_metrics(run_dir)
    ]


def test_it_is_trained_and_reported_as_the_networks_are(folder, whole):
    assert type(whole.learner) is toy_learners.Centres
    assert abs(float(whole.parameters.own["log_scale"].numpy()) - START) > 0.05
    last = lines(folder / "whole")[-1]
    for group in ("gci", "gradient_norm", "conflict_rate", "attention_max"):
        assert f"{group}/log_scale" in last


def test_a_stopped_run_goes_on_to_the_bit(folder, whole):
    asked = iter([False] * 4 + [True])
    half = train(folder, "stopped", stop=lambda: next(asked))
    there = float(half.parameters.own["log_scale"].numpy())
    again = train(folder, "stopped")
    assert there not in (START, float(again.parameters.own["log_scale"].numpy()))
    assert lines(folder / "stopped") == lines(folder / "whole")
    for a, b in zip(again.meta_step.optimizer.variables, whole.meta_step.optimizer.variables):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    pairs = zip(again.parameters.variables_trained, whole.parameters.variables_trained)
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_what_no_gradient_trains_is_kept_too(folder):
    """The counts of a growing mixture, whose second initialisation joins some steps after the stop."""
    grows = ("growing = True", "pause = 6", "threshold = 0.01", "initialisations = 2")
    params = [f"Reconciling.{x}" for x in (*grows, "inner_loop = @InnerLoop()")]
    params += ["convnet4.blocks = 1", "Experiment.aggregator = @Mean()", "Experiment.explore = None"]
    params += ["TrainerConfig.validate_every = 0"]
    learner = "Experiment.learner = @Reconciling()"
    whole = train(folder, "grown", *params, learner=learner)
    asked = iter([False] * 4 + [True])
    half = train(folder, "grown half", *params, learner=learner, stop=lambda: next(asked))
    again = train(folder, "grown half", *params, learner=learner)
    n_open = [float(x.parameters.own["mixture/open"].numpy()) for x in (half, again)]
    assert n_open == [1, 2]
    assert lines(folder / "grown half") == lines(folder / "grown")
    grown = [line["learner/mixture/open"] for line in lines(folder / "grown") if "train/loss" in line]
    assert grown == [1] * 6 + [2] * 6
    for name, value in whole.parameters.own.items():
        np.testing.assert_array_equal(again.parameters.own[name].numpy(), value.numpy())


def test_an_evaluation_loads_it_and_depends_on_it(folder, whole, monkeypatch):
    result, tasks = judging.judge(
        folder / "whole", data_dir=folder / "data", gin_params=["Evaluation.n_tasks = 6"],
        which="last", show=False,
    )  # fmt: skip
    assert result.about["learner"] == "Centres" and result.about["inner_steps"] is None
    assert "Centres, BatchNorm transductive" in str(result)
    load = judging.load_checkpoint

    def load_and_change(assembly, *args):
        manifest = load(assembly, *args)
        learned = whole.parameters.own["log_scale"].numpy()
        np.testing.assert_array_equal(assembly.parameters.own["log_scale"].numpy(), learned)
        assembly.parameters.own["log_scale"].assign(learned - 3)
        return manifest

    monkeypatch.setattr(judging, "load_checkpoint", load_and_change)
    changed, _ = judging.judge(
        folder / "whole", data_dir=folder / "data", gin_params=["Evaluation.n_tasks = 6"],
        which="last", show=False, tasks=tasks,
    )  # fmt: skip
    assert np.abs(changed.losses - result.losses).min() > 0.01
    np.testing.assert_array_equal(changed.accuracies, result.accuracies)  # a scale moves no maximum


def test_a_checkpoint_without_them_is_refused(tmp_path):
    folder, model = CheckpointFolder(tmp_path), {"0/kernel": tf.Variable([1.0])}
    folder.save(1, {"model": model}, {})
    state = {"model": model, "learner": {"0/log_scale": tf.Variable(0.0)}}
    with pytest.raises(CheckpointError, match="does not fit this model"):
        folder.load(folder.newest(), state)
