# SPDX-License-Identifier: Apache-2.0
"""The meta-learner LSTM against itself in NumPy, gradient descent where its gates are fixed, its facts."""

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import numpy_lstm, tiny_tasks
from tf_lwdgh.learners import FOMAML, MetaLearnerLSTM
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_learner_lstm import NAMES
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4

BATCH, RATE = tiny_tasks.episodes(), 0.3


def loop(**settings):
    return InnerLoop(**{"steps": 2, "inner_lr": 0.1, "adapt_batch_norm": True, **settings})


def gradient_descent(meta):
    """The meta-parameters with gates that don't depend on anything: forget nothing, at one rate."""
    own = {name: tf.zeros_like(value) for name, value in meta.own.items()}
    own["lstm/forget_bias"] = tf.constant(50.0, tf.float64)
    own["lstm/input_bias"] = tf.constant(np.log(RATE / (1 - RATE)), tf.float64)
    return meta._replace(own=own)


def test_with_fixed_gates_it_is_gradient_descent_and_its_start_has_fomamls_gradient():
    params = tiny_tasks.parameters(MetaLearnerLSTM(inner_loop=loop(), per_image=False), fused=False)
    fomaml = tiny_tasks.parameters(FOMAML(inner_loop=loop(inner_lr=RATE)), fused=False)
    ours = tiny_tasks.outcome(params, BATCH, gradient_descent(tiny_tasks.perturbed(params)))
    theirs = tiny_tasks.outcome(fomaml, BATCH, tiny_tasks.perturbed(fomaml))
    count = len(theirs.gradients)
    assert len(ours.gradients) == count + len(NAMES)
    tiny_tasks.assert_same_gradients(ours._replace(gradients=ours.gradients[:count]), theirs)


@pytest.mark.parametrize("per_image", [True, False])
def test_the_steps_are_those_written_out(per_image):
    learner = MetaLearnerLSTM(inner_loop=loop(steps=3), per_image=per_image, units=3)
    params = tiny_tasks.parameters(learner, fused=False, blocks=1)
    meta, one = tiny_tasks.perturbed(params, scale=0.5), tiny_tasks.task(BATCH)
    support = params.model.prepare(one.support_images)
    told = tiny_tasks.context(params)
    path = learner.trajectory(told, meta, support, one.support_labels)
    gradients, losses = [], []
    for at in path[:-1]:
        with tf.GradientTape() as tape:
            tape.watch(at)
            logits, _ = params.model.apply(at, meta.state, support, training=True)
            log_p = tf.gather(tf.nn.log_softmax(logits), one.support_labels, batch_dims=1)
            loss = -tf.reduce_mean(log_p)
        divide = len(log_p) if per_image else 1
        gradients.append([g.numpy() / divide for g in tape.gradient(loss, at)])
        losses.append(float(loss))
    own = {name: value.numpy() for name, value in meta.own.items()}
    expected = numpy_lstm.walk([v.numpy() for v in meta.network], gradients, losses, own)
    for ours, theirs in zip(path, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    assert np.abs(path[-1][0] - path[0][0]).max() > 1e-3


def test_recomputed_steps_and_fused_blocks_give_the_same_gradients():
    theirs = tiny_tasks.perturbed_outcome(MetaLearnerLSTM(inner_loop=loop(), units=4), fused=False)
    again = MetaLearnerLSTM(inner_loop=loop(memory="recompute"), units=4)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(again), theirs)


def test_the_weights_of_all_coordinates_are_2046_and_start_near_gradient_descent():
    params = MetaParameters(convnet4(image_size=84, filters=32), MetaLearnerLSTM())
    own = params.values().own
    assert list(own) == list(NAMES)
    assert sum(int(np.prod(v.shape)) for v in own.values()) == 2_046
    assert sum(int(np.prod(v.shape)) for v in params.variables_trained) == 32_901 + 2_046
    for name, value in own.items():
        low, high = (-0.01, 0.01)
        if name == "lstm/forget_bias":
            low, high = 4, 5
        if name == "lstm/input_bias":
            low, high = -5, -4
        assert np.all((low <= value) & (value <= high)), name
    again = MetaParameters(convnet4(image_size=84, filters=32), MetaLearnerLSTM(seed=1)).values().own
    assert np.abs(again["lstm/kernel"] - own["lstm/kernel"]).max() > 1e-3


def test_a_head_at_zero_takes_any_ways():
    learner = MetaLearnerLSTM(inner_loop=loop(), head="zero")
    params = tiny_tasks.parameters(learner, fused=False)
    one = tiny_tasks.task(tiny_tasks.episodes(n_way=5))
    told = tiny_tasks.context(params, training=False, n_way=tf.constant(5))
    adapted = learner.adapt(told, params.values(), one.support_images, one.support_labels)
    assert learner.any_way and adapted.params[-1].shape == [5]


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="MetaLearnerLSTM.units must be at least 1"):
        MetaLearnerLSTM(units=0)
    assert not MetaLearnerLSTM(inner_loop=loop(second_order=True)).inner_loop.second_order
