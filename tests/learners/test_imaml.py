# SPDX-License-Identifier: Apache-2.0
"""iMAML: the solver, the curvature, a quadratic's closed form, and slopes of the minimum."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks as tiny
from tf_lwdgh.learners import IMAML
from tf_lwdgh.learners.conjugate_gradients import solve
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.imaml import curvature_products
from tf_lwdgh.learners.inner_loop import InnerLoop


@pytest.fixture(autouse=True)
def _eagerly():
    """Without graphs, whose tracing is most of the time of such small tasks."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def imaml(steps=3, rate=0.1, inner=None, **settings):
    return IMAML(inner_loop=inner or InnerLoop(steps=steps, inner_lr=rate), **settings)


def parameters(learner):
    """On plain operations, which take less time to start."""
    return tiny.parameters(learner, fused=False)


def gradient(values, images, labels):
    """∇L from the definition."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        value = oracles.loss(values, images, labels.numpy())
    return tape.gradient(value, values)


def flat(tensors):
    return np.concatenate([np.asarray(t).ravel() for t in tensors])


def split(vector, like):
    sizes = np.cumsum([int(np.prod(x.shape)) for x in like])[:-1]
    parts = np.split(np.asarray(vector), sizes)
    return [tf.constant(p.reshape(x.shape), x.dtype) for p, x in zip(parts, like)]


# The solver.

SHAPES = [np.zeros([2, 3]), np.zeros([4]), np.zeros([])]  # 11 unknowns


def symmetric(eigenvalues, seed=0):
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(11, 11)))
    return basis @ np.diag(eigenvalues) @ basis.T


def solved(a, b, steps, dtype="float64"):
    like = [tf.constant(x, dtype) for x in SHAPES]

    def matrix(v):
        return split(a @ flat(v).astype(np.float64), like)

    return flat(solve(matrix, split(b, like), steps))


RIGHT = np.random.default_rng(1).normal(size=11)


@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1.0, 1e15])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_positive_definite_systems_are_solved_in_as_many_steps_as_unknowns(scale, dtype, tolerance):
    a = symmetric(np.linspace(0.5, 4, 11))
    expected = np.linalg.solve(a, RIGHT)
    for steps in (11, 15):
        found = solved(a, scale * RIGHT, steps, dtype) / scale
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_few_steps_are_the_best_that_their_directions_allow():
    """After k steps the error in A's norm is least over the span of b, Ab, …, A^(k−1) b."""
    a = symmetric(np.linspace(0.5, 4, 11))
    span = np.stack([np.linalg.matrix_power(a, k) @ RIGHT for k in range(3)], 1)
    best = span @ np.linalg.solve(span.T @ a @ span, span.T @ RIGHT)
    np.testing.assert_allclose(solved(a, RIGHT, 3), best, rtol=1e-9)


def test_nothing_to_solve_gives_zero_and_an_identity_the_right_side():
    np.testing.assert_array_equal(solved(symmetric(np.ones(11)), 0 * RIGHT, 4), 0)
    np.testing.assert_allclose(solved(np.eye(11), RIGHT, 4), RIGHT, rtol=1e-12)


@pytest.mark.parametrize("a", [-np.eye(11), np.zeros([11, 11])], ids=["negative", "zero"])
def test_without_positive_curvature_the_right_side_comes_back(a):
    np.testing.assert_allclose(solved(a, RIGHT, 5), RIGHT, rtol=1e-14)


def test_it_stops_where_curvature_turns_negative():
    """One direction curves down: the last iterate before it is kept, whatever steps follow."""
    a = symmetric(np.array([-1.0, *np.linspace(1, 2, 10)]))
    paths = [solved(a, RIGHT, steps) for steps in range(1, 12)]
    assert np.isfinite(paths).all()
    kept = next(k for k in range(10) if np.array_equal(paths[k], paths[k + 1]))
    assert kept < 9 and all(np.array_equal(paths[kept], later) for later in paths[kept:])
    assert RIGHT @ a @ RIGHT > 0 and not np.allclose(paths[kept], RIGHT)


# The curvature.


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain_ops"])
def test_products_are_differences_of_gradients(fused):
    params = tiny.parameters(imaml(), fused=fused)
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    rates = params.learner.rates(params.model)
    moving = [i for i, rate in enumerate(rates) if rate]
    assert 0 < len(moving) < len(rates)  # BatchNorm's variables stay
    support = params.model.prepare(one.support_images)
    loss = params.learner.support_loss(tiny.context(params), meta, support, one.support_labels)
    products = curvature_products(lambda at: loss(at, []), meta.network, moving, scale=8.0)
    r, h = np.random.default_rng(3), 1e-6
    v = [tf.constant(r.normal(size=p.shape)) for p in meta.network]
    step = [h * x if i in moving else 0 * x for i, x in enumerate(v)]
    up, down = (gradient([p + s * d for p, d in zip(meta.network, step)], *one[:2]) for s in (1, -1))
    found = products([v[i] for i in moving])
    for ours, a, b in zip(found, up, down):
        np.testing.assert_allclose(ours, (a - b) / (2 * h), rtol=1e-5, atol=1e-7)


# The learner.


def test_a_quadratic_support_loss_has_the_closed_form(monkeypatch):
    """L_S = ½(φ − c)ᵀA(φ − c): φ = (A + λ)⁻¹(Ac + λθ), g = λ(A + λ)⁻¹∇L_Q(φ)."""
    params = parameters(imaml(60, 0.55, proximity=0.8, cg_steps=30))
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    moving = [i for i, rate in enumerate(params.learner.rates(params.model)) if rate]
    theta, r = flat([meta.network[i] for i in moving]), np.random.default_rng(4)
    basis, _ = np.linalg.qr(r.normal(size=(len(theta), len(theta))))
    a, c = basis @ np.diag(r.uniform(0.1, 2, len(theta))) @ basis.T, r.normal(size=len(theta))

    def quadratic(self, context, meta, support, labels):
        def loss(at, inputs):
            away = tf.concat([tf.reshape(at[i], [-1]) for i in moving], 0) - c
            return 0.5 * tf.tensordot(away, tf.linalg.matvec(tf.constant(a), away), 1)

        return loss

    monkeypatch.setattr(GradientLearner, "support_loss", quadratic)
    inverse = np.linalg.inv(a + 0.8 * np.eye(len(theta)))
    goal, phi = inverse @ (a @ c + 0.8 * theta), list(meta.network)
    for i, part in zip(moving, split(goal, [meta.network[i] for i in moving])):
        phi[i] = part
    told = tiny.context(params)
    adapted = params.learner.adapt(told, meta, one.support_images, one.support_labels)
    found = flat([adapted.params[i] for i in moving])
    np.testing.assert_allclose(found, goal, rtol=1e-9, atol=1e-11)
    ours, result = params.learner.outer_gradient(told, meta, one)
    direct = gradient(phi, one.query_images, one.query_labels)
    expected = 0.8 * inverse @ flat([direct[i] for i in moving])
    found = flat([ours.network[i] for i in moving])
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)
    for i in set(range(len(phi))) - set(moving):  # no part of the quadratic
        np.testing.assert_allclose(ours.network[i], direct[i], rtol=1e-8, atol=1e-12)
    loss = oracles.loss(phi, one.query_images, one.query_labels.numpy())
    assert float(result.loss) == pytest.approx(float(loss), rel=1e-9)


@pytest.mark.parametrize(("batch_norm", "head"), [("transductive", "learned"), ("inductive", "zero")])
def test_outer_gradients_are_slopes_of_the_minimum(batch_norm, head):
    """In BatchNorm's variables too, which stay in the inner loop but shift where it ends."""
    learner = imaml(26, 0.04, proximity=20.0, cg_steps=14, batch_norm=batch_norm, head=head)
    params, batch = parameters(learner), tiny.episodes(n_tasks=1)
    # From other values a minimum may lie on an edge of ReLU or pooling, where it has no slope.
    meta = tiny.perturbed(params, seed=6)
    tiny.assert_gradient_is_the_slope(params, batch, meta, directions=1)


def test_with_a_strong_pull_the_gradient_is_that_of_the_query_loss_at_the_start():
    params = parameters(imaml(3, 1e-9, proximity=1e8))
    meta, batch = tiny.perturbed(params), tiny.episodes()
    ours = tiny.outcome(params, batch, meta).gradients
    for k in range(tiny.N_TASKS):
        expected = gradient(meta.network, *tiny.task(batch, k)[2:4])
        for a, b in zip(ours, expected):
            np.testing.assert_allclose(a[k], b, rtol=1e-5, atol=1e-7)


def test_the_steps_pull_back_to_the_start():
    """Each step is of rate α on ∇L_S(φ) + λ(φ − θ)."""
    params = parameters(imaml(3, 0.1, proximity=1.5))
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    adapted = params.learner.adapt(tiny.context(params), meta, one.support_images, one.support_labels)
    rates, phi = params.learner.rates(params.model), list(meta.network)
    for _ in range(3):
        slopes = gradient(phi, one.support_images, one.support_labels)
        phi = [p - r * (g + 1.5 * (p - t)) for p, r, g, t in zip(phi, rates, slopes, meta.network)]
    for a, b in zip(adapted.params, phi):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_without_steps_the_gradient_is_that_of_the_query_loss():
    params = parameters(imaml(0))
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    ours, _ = params.learner.outer_gradient(tiny.context(params), meta, one)
    for a, b in zip(ours.network, gradient(meta.network, *one[2:4])):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_a_pull_too_weak_for_the_curvature_leaves_the_gradient_finite():
    learner = imaml(5, 0.5, proximity=1e-7, cg_steps=8)
    params = tiny.parameters(learner, fused=False, dtype="float32")
    found = tiny.outcome(params, tiny.episodes(dtype="float32"))
    assert all(np.isfinite(g).all() for g in found.gradients)
    assert max(np.abs(g).max() for g in found.gradients) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proximity": 0.0}, "IMAML.proximity must be > 0"),
        ({"cg_steps": 0}, "IMAML.cg_steps must be at least 1"),
        ({"inner": InnerLoop(weight_decay=0.1)}, "InnerLoop.weight_decay must be 0.*= 0.1"),
        ({"inner": InnerLoop(sharpness=0.1)}, "InnerLoop.sharpness must be 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        imaml(**settings)
