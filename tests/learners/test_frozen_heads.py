# SPDX-License-Identifier: Apache-2.0
"""The heads that are learned on frozen features: against loops and minima of NumPy's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from tests.learners import tiny_tasks
from tf_lwdgh.learners import Baseline, BaselinePP, LogisticRegression, softmax_regression
from tf_lwdgh.learners.minibatch_descent import Descent, descend, orders

D, N = 7, 3


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def task(shots: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Features of N classes, and labels, in float64."""
    r = np.random.default_rng(2)
    labels = np.repeat(np.arange(N), shots)
    return r.normal(size=(N * shots, D)) + r.normal(size=(N, D))[labels], labels


@pytest.fixture(scope="module")
def context():
    return tiny_tasks.context(tiny_tasks.parameters(Baseline(), fused=False, blocks=1))


def descended(params, slopes, x, y, order, settings) -> list[np.ndarray]:
    """The loop as its authors' framework has it: minibatch by minibatch, epoch by epoch."""
    velocities = None
    for epoch in order:
        for first in range(0, len(x), settings.minibatch):
            chosen = epoch[first : first + settings.minibatch]
            g = [a + settings.weight_decay * p for a, p in zip(slopes(params, x[chosen], y[chosen]), params)]
            if velocities is None:
                velocities = g
            else:
                velocities = [settings.momentum * v + (1 - settings.dampening) * a for v, a in zip(velocities, g)]
            params = [p - settings.rate * v for p, v in zip(params, velocities)]
    return params


def linear_slopes(params, x, y) -> list[np.ndarray]:
    wrong = softmax(x @ params[0] + params[1])
    wrong[np.arange(len(y)), y] -= 1
    return [x.T @ wrong / len(y), wrong.mean(0)]


def cosine_slopes(params, x, y) -> list[np.ndarray]:
    """Of v and g, logits 2 g_c x·v_c/‖v_c‖ with x of length 1."""
    v, g = params
    lengths = np.linalg.norm(v, axis=0)
    cosines = x @ (v / lengths)
    wrong = softmax(2 * g * cosines)
    wrong[np.arange(len(y)), y] -= 1
    wrong /= len(y)
    of_unit = 2 * g * (x.T @ wrong)
    unit = v / lengths
    return [(of_unit - unit * (unit * of_unit).sum(0)) / lengths, 2 * (wrong * cosines).sum(0)]


@pytest.mark.parametrize("learner", [Baseline(epochs=4, rate=0.3), BaselinePP(epochs=4, rate=0.3)])
def test_a_head_is_trained_as_its_authors_do(learner, context):
    x, y = task()
    told = context._replace(n_way=N)
    features = learner.represent(told, None, tf.constant(x))
    kernel, bias = learner.fit(told, features, tf.constant(y))
    start = [p.numpy() for p in learner.start(told, features)]
    order = orders(tf.constant(len(x)), 4, learner._key(told, 0)).numpy()
    settings = Descent(0.3, 0.9, 0.9, 0.001, 4, 4)
    if type(learner) is Baseline:
        ours = descended(start, linear_slopes, x, y, order, settings)
        expected = ours
    else:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        v, g = descended(start, cosine_slopes, unit, y, order, settings)
        expected = [2 * g * v / np.linalg.norm(v, axis=0), np.zeros(N)]
        np.testing.assert_allclose(start[1], np.linalg.norm(start[0], axis=0))
    np.testing.assert_allclose(kernel, expected[0], rtol=1e-9)
    np.testing.assert_allclose(bias, expected[1], rtol=1e-9, atol=1e-12)
    assert np.abs(start[0]).max() <= 1 / np.sqrt(D)


def test_every_epoch_takes_every_row_once_in_another_order():
    order = orders(tf.constant(10), 5, tf.constant([3, 4], tf.int64)).numpy()
    assert all(sorted(epoch) == list(range(10)) for epoch in order)
    assert len({tuple(epoch) for epoch in order}) == 5


def test_a_fixed_scale_of_norm_1_bounds_the_logits(context):
    x, y = task()
    learner, told = BaselinePP(epochs=20, rate=1.0, learned_norms=False), context._replace(n_way=N)
    features = learner.represent(told, None, tf.constant(x))
    kernel, bias = learner.fit(told, features, tf.constant(y))
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 2.0)
    assert not bias.numpy().any()


def test_an_order_longer_than_the_rows_leaves_no_trace_of_padding():
    """With minibatches that don't divide the rows, whole epochs of one minibatch are gradient descent."""
    x, y = task()
    settings = Descent(0.1, 0.0, 0.0, 0.0, 3, 64)
    start = [np.zeros((D, N)), np.zeros(N)]

    def losses(params, rows, labels):
        logits = tf.matmul(rows, params[0]) + params[1]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    order = orders(tf.constant(len(x)), 3, tf.constant([0, 0], tf.int64))
    found = descend(losses, [tf.constant(p) for p in start], tf.constant(x), tf.constant(y), settings, order)
    expected = start
    for _ in range(3):
        expected = [p - 0.1 * g for p, g in zip(expected, linear_slopes(expected, x, y))]
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def regression_slopes(x, y, c, kernel, bias) -> list[np.ndarray]:
    """The gradient of c Σ −log softmax(xW + b)[y] + ½‖W‖²."""
    wrong = softmax(x @ kernel + bias)
    wrong[np.arange(len(y)), y] -= 1
    return [c * x.T @ wrong + kernel, c * wrong.sum(0)]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_softmax_regression_finds_the_minimum(shots, c):
    x, y = task(shots)

    def objective(flat):
        kernel, bias = flat[: D * N].reshape(D, N), flat[D * N :]
        value = -c * np.log(softmax(x @ kernel + bias)[np.arange(len(y)), y]).sum()
        slopes = regression_slopes(x, y, c, kernel, bias)
        return value + 0.5 * np.square(kernel).sum(), np.concatenate([g.ravel() for g in slopes])

    options = {"ftol": 0, "gtol": 1e-10, "maxiter": 10_000, "maxfun": 20_000}
    best = scipy.optimize.minimize(objective, np.zeros(D * N + N), jac=True, method="L-BFGS-B", options=options).x
    kernel, bias = softmax_regression.fit(tf.constant(x), tf.constant(y), N, c=c, tolerance=1e-9, most_steps=50)
    for slopes in regression_slopes(x, y, c, kernel.numpy(), bias.numpy()):
        assert np.abs(slopes).max() < 1e-8
    np.testing.assert_allclose(kernel, best[: D * N].reshape(D, N), atol=1e-6)
    np.testing.assert_allclose(bias, best[D * N :] - best[D * N :].mean(), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3])
def test_softmax_regression_is_finite_on_ugly_rows(scale):
    x, y = task()
    x = np.concatenate([scale * x, scale * x, np.zeros((N, D))]).astype(np.float32)
    y = np.concatenate([y, y, np.arange(N)])
    fit = softmax_regression.fit(tf.constant(x), tf.constant(y), N, c=1.0, tolerance=1e-4, most_steps=50)
    assert all(np.isfinite(part).all() for part in fit)
    if scale == 0:
        assert not fit[0].numpy().any()


def test_in_single_precision_the_gradient_is_within_the_tolerance(context):
    x, y = task()
    learner, told = LogisticRegression(), context._replace(n_way=N)
    features = learner.represent(told, None, tf.constant(x, tf.float32))
    kernel, bias = (p.numpy().astype(np.float64) for p in learner.fit(told, features, tf.constant(y)))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    slopes = regression_slopes(unit, y, 1.0, kernel, bias)
    assert max(np.abs(g).max() for g in slopes) < 3e-4  # each a sum over D entries of the solver's basis
    assert kernel.dtype == np.float64 and abs(bias.sum()) < 1e-5
