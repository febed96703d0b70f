# SPDX-License-Identifier: Apache-2.0
"""The inner loop on losses written out in NumPy: its steps, sharpness, and what the outer gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.learners import inner_loop
from tf_lwdgh.learners.inner_loop import InnerLoop, by_rates

R = np.random.default_rng(0)
MATRIX, SHIFT = R.normal(size=(5, 3)), R.normal(size=(5, 2))
START = [R.normal(size=3), R.normal(size=2)]
RATES = (0.1, 0.2)
STEPS = 3


def loss(params, inputs):
    """log Σ exp(A x + B y) + c‖x‖²: a smooth function with a Hessian that moves; c is an input or 0."""
    x, y = params
    scores = tf.linalg.matvec(tf.constant(MATRIX), x) + tf.linalg.matvec(tf.constant(SHIFT), y)
    extra = inputs[1] * tf.reduce_sum(x * x) if inputs else 0.0
    return tf.reduce_logsumexp(scores) + extra


def slope(x, y, c=0.0):
    """The gradient of `loss` in x and y, in NumPy."""
    scores = MATRIX @ x + SHIFT @ y
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return [MATRIX.T @ p + 2 * c * x, SHIFT.T @ p]


def adapt(settings, params, inputs=lambda step: [], update=None, moving=(0, 1)):
    update = update or by_rates([RATES[i] for i in moving])
    return inner_loop.adapt(loss, params, settings=settings, moving=moving, update=update, inputs=inputs)


def outer(params):
    """What stands for the query loss."""
    return tf.reduce_sum(tf.sin(params[0])) + tf.reduce_sum(params[1] ** 3)


def differences(value, at, h=1e-6):
    """Central differences of a function of a list of arrays, in each entry."""
    found = []
    for i, a in enumerate(at):
        grad = np.zeros_like(a)
        for j in np.ndindex(a.shape):
            ends = []
            for s in (h, -h):
                moved = [np.array(b) for b in at]
                moved[i][j] += s
                ends.append(value(moved))
            grad[j] = (ends[0] - ends[1]) / (2 * h)
        found.append(grad)
    return found


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_a_step_takes_the_gradient_uphill_by_its_sharpness(rho):
    settings = InnerLoop(steps=STEPS, sharpness=rho, momentum=0.5, weight_decay=0.01)
    path = adapt(settings, [tf.constant(p) for p in START])
    here, velocity = START, [0, 0]
    for got in path:
        for a, b in zip(got, here):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        gradient = slope(*here)
        length = np.sqrt(sum((g * g).sum() for g in gradient))
        uphill = slope(*(p + rho * g / length for p, g in zip(here, gradient)))
        velocity = [0.5 * v + g + 0.01 * p for v, g, p in zip(velocity, uphill, here)]
        here = [p - rate * v for p, rate, v in zip(here, RATES, velocity)]


def test_sharpness_counts_only_what_moves():
    path = adapt(InnerLoop(steps=1, sharpness=0.3), [tf.constant(p) for p in START], moving=(1,))
    gradient = slope(*START)[1]
    uphill = slope(START[0], START[1] + 0.3 * gradient / np.linalg.norm(gradient))[1]
    np.testing.assert_array_equal(path[-1][0], START[0])
    np.testing.assert_allclose(path[-1][1], START[1] - RATES[1] * uphill, rtol=1e-12)


def test_where_the_gradient_is_zero_sharpness_moves_nothing():
    still = inner_loop.adapt(
        lambda params, _: tf.reduce_sum(params[0] ** 2), [tf.zeros([3], tf.float64)],
        settings=InnerLoop(steps=2, sharpness=0.5), moving=[0], update=by_rates([0.1]),
    )  # fmt: skip
    np.testing.assert_array_equal(still[-1][0], np.zeros(3))


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_the_way_uphill_is_a_constant_to_the_outer_gradient(memory):
    settings = InnerLoop(steps=STEPS, sharpness=0.3, memory=memory)
    start = [tf.constant(p) for p in START]
    with tf.GradientTape() as tape:
        tape.watch(start)
        value = outer(adapt(settings, start)[-1])
    ours = tape.gradient(value, start)

    ways, here = [], START  # e of each step, on the path from START
    for _ in range(STEPS):
        gradient = slope(*here)
        length = np.sqrt(sum((g * g).sum() for g in gradient))
        ways.append([0.3 * g / length for g in gradient])
        there = slope(*(p + e for p, e in zip(here, ways[-1])))
        here = [p - rate * g for p, rate, g in zip(here, RATES, there)]

    def with_ways_held(at):
        for way in ways:
            there = slope(*(p + e for p, e in zip(at, way)))
            at = [p - rate * g for p, rate, g in zip(at, RATES, there)]
        return np.sin(at[0]).sum() + (at[1] ** 3).sum()

    for a, b in zip(ours, differences(with_ways_held, START)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("order", [None, 1.0, 0.0])
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_what_a_step_is_given_gets_its_outer_gradient(memory, order):
    """Inputs of update (a rate a step) and of the loss (a factor) against finite differences."""
    rates, factor = np.array([0.1, 0.3, 0.2]), np.array(0.25)

    def path(start, rates, factor):
        return inner_loop.adapt(
            loss, start,
            settings=InnerLoop(steps=STEPS, momentum=0.5, memory=memory), moving=(0, 1),
            update=lambda velocities, given: [given[0] * v for v in velocities],
            inputs=lambda step: [rates[step], factor],
            order=None if order is None else tf.constant(order, tf.float64),
        )  # fmt: skip

    def walk(at, held=None):
        """The value at the end, and the gradients on the way; they are those of `held` if given."""
        x, y, velocity, gradients = at[0], at[1], [0, 0], []
        for s, rate in enumerate(at[2]):
            gradients.append(slope(x, y, at[3]) if held is None else held[s])
            velocity = [0.5 * v + g for v, g in zip(velocity, gradients[-1])]
            x, y = x - rate * velocity[0], y - rate * velocity[1]
        return np.sin(x).sum() + (y**3).sum(), gradients

    where = [*(tf.constant(p) for p in START), tf.constant(rates), tf.constant(factor)]
    with tf.GradientTape() as tape:
        tape.watch(where)
        value = outer(path(where[:2], *where[2:])[-1])
    ours = tape.gradient(value, where, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    at = [*START, rates, factor]
    reached, gradients = walk(at)
    assert float(value) == pytest.approx(reached, rel=1e-12)
    held = gradients if order == 0.0 else None
    theirs = differences(lambda there: walk(there, held)[0], at)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_bad_sharpness_is_refused(value):
    with pytest.raises(ValueError, match="InnerLoop.sharpness must be >= 0, finite. Received"):
        InnerLoop(sharpness=value)
