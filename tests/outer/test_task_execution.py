# SPDX-License-Identifier: Apache-2.0
"""The ways over the tasks: each gives the outer gradients of the independent reverse sweep."""

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import test_outer_gradient as outer_gradient
from tests.learners import tiny_tasks
from tests.learners.test_outer_gradient import (
    assert_close,
    at,
    inner_loop,
    random_episodes,
    small_convnet,
    small_resnet,
)
from tf_lwdgh import config
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer.evaluation import Evaluator
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.outer.task_execution import MODES, TaskExecution

N_WAY, N_TASKS = outer_gradient.N_WAY, outer_gradient.N_TASKS
CASE = "momentum_and_decay"  # of the inner loop


def gradients(keras_model, execution, memory="store", episodes=None):
    parameters = MetaParameters(keras_model, MAML(inner_loop=inner_loop(CASE, memory)))
    meta = at(parameters, outer_gradient.perturbed_values(parameters.model))
    episodes = random_episodes() if episodes is None else episodes
    run = tf.function(lambda: outer_gradients(parameters, episodes, meta=meta, execution=execution), autograph=False)
    found = run()
    assert found.losses.shape == found.accuracies.shape == (N_TASKS,)
    return [g.numpy() for g in found.gradients]


@pytest.mark.parametrize(
    "mode, memory, fused, xla",
    [
        pytest.param("vectorized", "store", True, False, marks=pytest.mark.slow),
        ("vectorized", "store", False, False),
        pytest.param("vectorized", "recompute", True, True, marks=pytest.mark.slow),
        ("unrolled", "recompute", True, False),
        ("unrolled", "store", False, False),
        ("map", "store", True, True),
    ],  # Of plain max-pooling's second derivative XLA has no kernel.
)
def test_every_mode_gives_the_gradients_of_the_reverse_sweep(mode, memory, fused, xla):
    found = gradients(small_convnet(fused), TaskExecution(mode, xla=xla), memory=memory)
    assert_close(found, outer_gradient.swept(CASE))


def test_one_task_at_a_time_changes_nothing():
    found = gradients(small_convnet(), TaskExecution(parallel_tasks=1))
    assert_close(found, outer_gradient.swept(CASE))


@pytest.mark.slow
def test_resnet12_as_one_batch_of_all_tasks_has_the_gradients_of_each_alone():
    episodes, network = random_episodes(size=8), small_resnet()
    together = gradients(network, TaskExecution("vectorized"), episodes=episodes)
    assert_close(together, gradients_alone(network, episodes))


def gradients_alone(keras_model, episodes):
    """Each task's gradients, on its own."""
    parameters = MetaParameters(keras_model, MAML(inner_loop=inner_loop(CASE)))
    meta = at(parameters, outer_gradient.perturbed_values(parameters.model))
    context = Context(parameters.model, training=True)

    @tf.function(autograph=False)
    def run(episode):
        with tf.GradientTape() as tape:
            tape.watch(meta.network)
            loss = parameters.learner.objective(context, meta, episode).loss
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(loss, meta.network, unconnected_gradients=zero)

    return [[g.numpy() for g in run(tiny_tasks.task(episodes, k))] for k in range(N_TASKS)]


def test_a_loop_may_have_any_number_of_tasks_and_unrolling_is_refused():
    episodes = random_episodes()
    parameters = MetaParameters(small_convnet(), MAML(inner_loop=InnerLoop(steps=1)))
    unknown = tiny_tasks.of_any_number(episodes)

    def losses(mode):
        def run(e):
            return outer_gradients(parameters, e, execution=TaskExecution(mode)).losses

        return tf.function(run, input_signature=[unknown], autograph=False)

    assert losses("map")(episodes).shape == (N_TASKS,)
    message = "'unrolled' needs a number of tasks that is known when tracing. Received: None"
    with pytest.raises(ValueError, match=message):
        losses("unrolled").get_concrete_function()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "scan"}, "mode must be one of map, vectorized, unrolled. Received: 'scan'"),
        ({"parallel_tasks": 0}, "parallel_tasks must be at least 1, or None .*cores. Received: 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"TaskExecution.{message}"):
        TaskExecution(**settings)


@pytest.mark.parametrize(
    "mode, parallel, tasks, at_once",
    [
        ("map", None, 4, 4), ("map", None, None, None), ("map", 1, 4, 1), ("map", 2, None, 2),
        ("map", 8, 4, 4), ("vectorized", None, 4, 1), ("unrolled", 1, 4, 4),
    ],
)  # fmt: skip
def test_tasks_at_once_follow_the_mode(mode, parallel, tasks, at_once):
    assert TaskExecution(mode, parallel).at_once(tasks) == at_once


@pytest.mark.parametrize("mode, xla", [*((mode, False) for mode in MODES), ("vectorized", True)])
def test_evaluation_predicts_as_if_every_task_were_alone(mode, xla):
    episodes = random_episodes()
    parameters = MetaParameters(small_convnet(), MAML(inner_loop=InnerLoop(inner_lr=0.1)))
    config.parse([], [f"TaskExecution.mode = {mode!r}", f"TaskExecution.xla = {xla}"])
    found = Evaluator(parameters, inner_steps=2)(episodes)
    assert f"TaskExecution.mode = {mode!r}" in config.operative_text()
    context, learner = Context(parameters.model, steps=2), parameters.learner
    meta = parameters.values()
    for k in range(N_TASKS):
        one = tiny_tasks.task(episodes, k)
        adapted = learner.adapt(context, meta, one.support_images, one.support_labels)
        logits = learner.predict(context, meta, adapted, one.query_images)[0].numpy()
        np.testing.assert_array_equal(found["predictions"][k], logits.argmax(-1))
        shifted = logits - logits.max(-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        loss = -log_p[np.arange(len(log_p)), one.query_labels].mean()
        np.testing.assert_allclose(found["loss"][k], loss, rtol=1e-6)
