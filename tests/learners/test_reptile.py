# SPDX-License-Identifier: Apache-2.0
"""Reptile against its definition written out in NumPy, and its minibatches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks as tiny
from tf_lwdgh.learners import Reptile, shuffles
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.shuffles import minibatches


@pytest.fixture(autouse=True)
def _eagerly():
    """Without graphs, whose tracing is most of the time of such small tasks."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def reptile(steps=1, rate=0.05, **settings):
    settings = {"optimizer": "sgd", "batch_size": None, **settings}
    return Reptile(inner_loop=InnerLoop(steps=steps, inner_lr=rate, adapt_batch_norm=True), **settings)


def parameters(learner):
    """On plain operations, which take less time to start."""
    return tiny.parameters(learner, fused=False)


def seen(batch, k):
    """All images of a task, as the oracle takes them."""
    one = tiny.task(batch, k)
    images = tf.concat([one.support_images, one.query_images], 0)
    return images, np.concatenate([one.support_labels, one.query_labels])


def gradient(params, images, labels):
    with tf.GradientTape() as tape:
        tape.watch(params)
        value = oracles.loss(params, images, labels)
    return tape.gradient(value, params)


def walk(params, batches, change):
    """The parameters after a step on each batch; `change` makes what is subtracted of gradients."""
    for images, labels in batches:
        params = [p - c for p, c in zip(params, change(gradient(params, images, labels)))]
    return params


def test_after_one_step_of_sgd_the_outer_gradient_is_the_gradient():
    params, batch = parameters(reptile()), tiny.episodes()
    meta = tiny.perturbed(params)
    ours = tiny.outcome(params, batch, meta).gradients
    for k in range(tiny.N_TASKS):
        for a, b in zip(ours, gradient(meta.network, *seen(batch, k))):
            np.testing.assert_allclose(a[k], b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("scale", ["gradient", "displacement"])
def test_several_steps_give_the_way_walked(scale):
    params, batch = parameters(reptile(3, scale=scale)), tiny.episodes()
    meta = tiny.perturbed(params)
    ours = tiny.outcome(params, batch, meta).gradients
    for k in range(tiny.N_TASKS):
        end = walk(meta.network, [seen(batch, k)] * 3, lambda gs: [0.05 * g for g in gs])
        size = 0.15 if scale == "gradient" else 1
        for a, theta, phi in zip(ours, meta.network, end):
            np.testing.assert_allclose(a[k], (theta - phi) / size, rtol=1e-8, atol=1e-10)


def test_adam_has_no_first_moment_and_starts_afresh_in_every_task():
    params = parameters(reptile(3, 0.01, optimizer="adam", beta_2=0.9, scale="displacement"))
    batch, second, t = tiny.episodes(), None, 0
    meta = tiny.perturbed(params)

    def adam(gradients):
        nonlocal second, t
        t += 1
        second = [0.9 * s + 0.1 * g**2 for s, g in zip(second or [0] * len(gradients), gradients)]
        return [0.01 * g / (np.sqrt(s / (1 - 0.9**t)) + 1e-8) for s, g in zip(second, gradients)]

    ours = tiny.outcome(params, batch, meta).gradients
    idle = params.model.is_idle  # gradients of 1e-17, whose sign means nothing
    for k in range(tiny.N_TASKS):
        second, t = None, 0
        end = walk(meta.network, [seen(batch, k)] * 3, adam)
        for a, theta, phi, skip in zip(ours, meta.network, end, idle):
            if not skip:
                np.testing.assert_allclose(a[k], theta - phi, rtol=1e-6, atol=1e-9)


def test_a_full_step_on_one_task_moves_the_initialisation_to_what_it_learned():
    learner = reptile(2, scale="displacement")
    step = tiny.meta_step(learner, tasks=1, fused=False)
    step.optimizer = tf.keras.optimizers.SGD(1.0)
    params, batch = step.parameters, tiny.episodes(n_tasks=1)
    step.optimizer.build(params.variables_trained)
    images, labels = seen(batch, 0)
    told = tiny.context(params)
    support = params.model.prepare(images)
    goal = learner.trajectory(told, params.values(), support, tf.constant(labels))[-1]
    step(batch, tf.constant(0, tf.int64))
    for now, then in zip(params.values().network, goal):
        np.testing.assert_allclose(now, then, rtol=1e-12, atol=1e-14)


def test_training_learns_from_minibatches_of_all_images_and_testing_from_those_of_the_support_set():
    learner = reptile(4, batch_size=5, test_batch_size=4)
    params, batch = parameters(learner), tiny.episodes()
    meta, told = tiny.perturbed(params), tiny.context(params)
    one, (images, labels) = tiny.task(batch), seen(batch, 0)

    def sgd(images, labels, size):
        order = minibatches(len(labels), size, 4, told.key)
        batches = [(tf.gather(images, i), labels[i.numpy()]) for i in order]
        return walk(meta.network, batches, lambda gs: [0.05 * g for g in gs])

    ours, _ = learner.outer_gradient(told, meta, one)
    for a, theta, phi in zip(ours.network, meta.network, sgd(images, labels, 5)):
        np.testing.assert_allclose(a, (theta - phi) / 0.2, rtol=1e-8, atol=1e-10)
    tested = told._replace(training=False)
    adapted = learner.adapt(tested, meta, one.support_images, one.support_labels)
    for a, b in zip(adapted.params, sgd(one.support_images, one.support_labels.numpy(), 4)):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_minibatches_are_shuffled_passes_and_a_function_of_the_key():
    key = tf.constant([3, 4], tf.int64)
    drawn = np.concatenate(minibatches(7, 3, 6, key))
    passes = drawn[:14].reshape(2, 7)
    assert (np.sort(passes) == np.arange(7)).all() and len(set(drawn[14:])) == 4
    assert (passes[0] != passes[1]).any()
    np.testing.assert_array_equal(drawn, np.concatenate(minibatches(tf.constant(7), 3, 6, key)))
    other = np.concatenate(minibatches(7, 3, 6, tf.constant([3, 5], tf.int64)))
    assert (drawn != other).any()
    repeated = minibatches(2, 5, 2, key)  # more than there are: two and a half passes a batch
    assert [len(b) for b in repeated] == [5, 5]
    np.testing.assert_array_equal(np.bincount(np.concatenate(repeated)), [5, 5])


def test_the_noise_is_splitmix64():
    """Its first output for the seed 1234567, as published; and the key's words as its seed."""
    gamma, seed = tf.constant(0x9E3779B97F4A7C15, tf.uint64), tf.constant(1234567, tf.uint64)
    assert int(shuffles.mixed(gamma + seed)) == 6457827717110365317

    def mixed(x):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            x = (x ^ x >> shift) * factor % 2**64
        return x

    start = mixed(mixed((-3 + 0x9E3779B97F4A7C15) % 2**64) ^ 7)
    expected = [mixed((start + 0x9E3779B97F4A7C15 * (i + 1)) % 2**64) >> 11 for i in range(50)]
    np.testing.assert_array_equal(shuffles.noise(50, tf.constant([-3, 7], tf.int64)), expected)


def test_tasks_that_run_as_one_batch_get_the_same_minibatches():
    tf.config.run_functions_eagerly(False)
    keys = tf.constant([[1, 2], [3, 4]], tf.int64)
    draw = lambda key: tf.stack(minibatches(5, 3, 4, key))  # noqa: E731
    together = tf.vectorized_map(draw, keys, fallback_to_while_loop=False)
    np.testing.assert_array_equal(together, [draw(key) for key in keys])


def test_every_task_has_an_order_of_its_own():
    """Equal tasks of a meta-batch get unequal gradients, since their minibatches differ."""
    params = parameters(reptile(2, batch_size=4))
    one = tiny.episodes(n_tasks=1)
    twice = tf.nest.map_structure(lambda x: tf.concat([x, x], 0), one)
    head = tiny.outcome(params, twice).gradients[-2]
    assert np.abs(head[0] - head[1]).max() > 1e-6


def test_what_stays_in_the_inner_loop_is_not_trained():
    learner = dataclasses.replace(reptile(), inner_loop=InnerLoop(steps=1, inner_lr={"conv2": 0.1, "head": 0.1}))
    params = parameters(learner)
    assert params.names == ["conv2/kernel", "conv2/bias", "head/kernel", "head/bias"]
    zero = dataclasses.replace(learner, head="zero")
    assert parameters(zero).names == ["conv2/kernel", "conv2/bias"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "rms"}, "Reptile.optimizer must be one of sgd, adam"),
        ({"scale": "sum"}, "Reptile.scale must be one of gradient, displacement"),
        ({"batch_size": 0}, "Reptile.batch_size must be at least 1, or None"),
        ({"test_batch_size": -1}, "Received: Reptile.test_batch_size = -1"),
        ({"beta_2": 1.0}, r"Reptile.beta_2 must be in \[0, 1\)"),
        ({"epsilon": 0.0}, "Reptile.epsilon must be > 0"),
        ({"steps": 0}, "InnerLoop.steps must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        reptile(**settings)
