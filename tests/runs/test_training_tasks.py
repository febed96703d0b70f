# SPDX-License-Identifier: Apache-2.0
"""Training tasks of another shape than those of validation and test."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.data import pipeline
from tf_lwdgh.data.training_tasks import TrainingTasks
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.runs.introduction import markdown
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer

WIDE = (
    "TrainingTasks.n_way = 6", "TrainingTasks.k_shot = 2", "TrainingTasks.n_query = 4", "Experiment.explore = None",
    "Experiment.aggregator = @Mean()", "convnet4.fused = False", "EPOCHS = 1",
)  # fmt: skip
PROTOTYPES = ("Experiment.learner = @PrototypicalNetwork()", *WIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training_tasks")


def first_batch(assembly):
    source, shape = assembly.source("train"), assembly.training_episode
    return next(iter(pipeline.meta_batches(source, shape, meta_batch_size=2, seed=0)))


def test_training_has_its_shape_and_validation_and_test_keep_theirs(folder):
    assembly = tiny.build(folder, *PROTOTYPES)
    shape = assembly.training_episode
    assert (shape.n_way, shape.k_shot, shape.n_query) == (6, 2, 4)
    assert (assembly.shape.n_way, assembly.shape.k_shot, assembly.shape.n_query) == (3, 1, 3)
    assert assembly.evaluation_episode(Evaluation()) == assembly.shape
    said = markdown(assembly, config.settings(), "")
    assert "3-way 1-shot, 3 queries a class; in training 6-way 2-shot, 4 queries a class" in said


def test_the_loss_is_over_all_ways_of_a_training_task(folder):
    assembly = tiny.build(folder, *PROTOTYPES)
    batch, model = first_batch(assembly), assembly.parameters.model
    assert batch.class_ids.shape == (2, 6)
    noise = np.random.default_rng(0).random  # patterns are told apart at once, and leave no loss
    batch = batch._replace(
        support_images=tf.constant(noise(batch.support_images.shape), tf.float32),
        query_images=tf.constant(noise(batch.query_images.shape), tf.float32),
    )
    losses = outer_gradients(assembly.parameters, batch).losses.numpy()
    meta = assembly.parameters.values()
    for task in range(2):
        support, query = (
            model.features(meta.network, meta.state, images[task], training=True)[0].numpy().astype(np.float64)
            for images in (batch.support_images, batch.query_images)
        )
        means = support.reshape(6, 2, -1).mean(1)
        logits = -((query[:, None] - means) ** 2).sum(-1)
        top = logits.max(-1)
        normaliser = top + np.log(np.exp(logits - top[:, None]).sum(-1))
        expected = np.mean(normaliser - logits[np.arange(24), batch.query_labels[task].numpy()])
        np.testing.assert_allclose(losses[task], expected, rtol=1e-4)
        assert expected > 0.1


def test_a_head_of_zeros_has_the_training_tasks_ways(folder):
    assembly = tiny.build(folder, *WIDE, "MAML.head = 'zero'", "INNER_LR = 1e-9")
    outcome = outer_gradients(assembly.parameters, first_batch(assembly))
    np.testing.assert_allclose(outcome.losses, math.log(6), rtol=1e-5)


def test_a_run_trains_on_its_shape_and_is_validated_on_the_other(folder):
    trainer = Trainer(tiny.build(folder, *PROTOTYPES), str(folder / "run"))
    trainer.run(progress=Progress(total=4, done=0, tasks_per_step=3, stream=io.StringIO()))
    assert trainer.meta_step.traces == 1
    lines = read_metrics(folder / "run")
    seen = {round(line["train/accuracy"] * 3 * 24, 3) for line in lines if "train/accuracy" in line}
    assert all(hits == round(hits) for hits in seen)  # of 3 tasks of 6 × 4 queries
    val = [line["val/accuracy"] * 5 * 9 for line in lines if "val/accuracy" in line]
    np.testing.assert_allclose(val, np.round(val), atol=1e-3)  # of 5 tasks of 3 × 3


def test_a_training_split_alone_must_fill_the_training_tasks(folder):
    with pytest.raises(ValueError, match=r"TrainingTasks\.n_way must be at most .* 'train' .* has 6.*= 7"):
        tiny.build(folder, *PROTOTYPES, "TrainingTasks.n_way = 7")
    with pytest.raises(ValueError, match=r"TrainingTasks\.k_shot \+ TrainingTasks\.n_query must be at most"):
        tiny.build(folder, *PROTOTYPES, "TrainingTasks.n_query = 11")
    tiny.build(folder, *PROTOTYPES, "TrainingTasks.n_way = 7", "EpisodeConfig.rotations = True")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (("MAML.head = 'learned'",), r"TrainingTasks\.n_way must be EpisodeConfig\.n_way = 3.*MAML\.head = 'zero'"),
        (("Experiment.learner = @Classifier()",), r"TrainingTasks\.n_way must be None with @Classifier\(\)"),
        (("Experiment.learner = @DynamicNet()",), r"TrainingTasks\.n_way must be None with @DynamicNet\(\)"),
        (
            ("Experiment.learner = @ProtoMAML()", "Experiment.episodes = @VariableEpisodes()"),
            r"TrainingTasks\.n_way must be None where Experiment\.episodes",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(folder, params, said):
    with pytest.raises(ValueError, match=said):
        tiny.build(folder, *WIDE, *params)


@pytest.mark.parametrize(("name", "value", "least"), [("n_way", 1, 2), ("k_shot", 0, 1), ("n_query", True, 1)])
def test_values_are_checked(name, value, least):
    with pytest.raises(ValueError, match=rf"TrainingTasks\.{name} must be an integer of at least {least}, or None"):
        TrainingTasks(**{name: value})


def test_what_is_not_trained_need_not_fill_them(folder):
    tiny.build(folder, *PROTOTYPES)
    experiment = Experiment()
    assert experiment.build(None).episode.n_way == 3
