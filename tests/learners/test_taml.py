# SPDX-License-Identifier: Apache-2.0
"""TAML: the measures of inequality against published values, and the coupled objective."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks as tiny
from tf_lwdgh.learners import MAML, TAML, inequality
from tf_lwdgh.learners.inner_loop import InnerLoop

CASES = {  # setting: (settings, the value at losses 1 and 3)
    "theil": ({}, 0.130812),
    "generalised_entropy(2)": ({"exponent": 2.0}, 0.125),
    "generalised_entropy(1)": ({"exponent": 1.0}, 0.130812),
    "generalised_entropy(0)": ({"exponent": 0.0}, 0.143841),
    "generalised_entropy(-1.5)": ({"exponent": -1.5}, None),
    "atkinson(.5)": ({"aversion": 0.5}, 0.066987),
    "atkinson(1)": ({"aversion": 1.0}, 0.133975),
    "atkinson(2)": ({"aversion": 2.0}, None),
    "gini": ({}, 0.25),
    "variance_of_logs": ({}, 0.301737),
}
LOSSES = np.array([1.7, 0.3, 2.2, 0.9, 0.31])


@pytest.fixture(autouse=True)
def _eagerly():
    """Without graphs, whose tracing is most of the time of such small tasks."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def settings_of(case):
    return {"exponent": 2.0, "aversion": 0.5, **CASES[case][0]}


def name_of(case):
    return case.partition("(")[0]


def value(case, losses):
    losses = tf.constant(losses, tf.float64)
    return float(inequality.measure(name_of(case), losses, **settings_of(case)))


def slopes(case, losses, dtype=tf.float64):
    losses = tf.constant(losses, dtype)
    return inequality.gradient(name_of(case), losses, **settings_of(case)).numpy()


def oracle(case, losses):
    """From the textbook's definitions, in loops."""
    mean, count, s = np.mean(losses), len(losses), settings_of(case)
    name, a, e = name_of(case), s["exponent"], s["aversion"]
    if name == "theil" or (name == "generalised_entropy" and a == 1):
        return sum(x / mean * np.log(x / mean) for x in losses) / count
    if name == "generalised_entropy":
        if a == 0:
            return -sum(np.log(x / mean) for x in losses) / count
        return sum((x / mean) ** a - 1 for x in losses) / (count * a * (a - 1))
    if name == "atkinson":
        if e == 1:
            return 1 - np.prod(losses) ** (1 / count) / mean
        return 1 - np.mean(losses ** (1 - e)) ** (1 / (1 - e)) / mean
    if name == "gini":
        return sum(abs(x - y) for x in losses for y in losses) / (2 * count**2 * mean)
    return np.var(np.log(losses))


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][1] is not None])
def test_measures_have_the_published_values(case):
    assert value(case, [1.0, 3.0]) == pytest.approx(CASES[case][1], abs=5e-7)


@pytest.mark.parametrize("case", CASES)
def test_measures_and_their_gradients_follow_the_definition(case):
    assert value(case, LOSSES) == pytest.approx(oracle(case, LOSSES), rel=1e-12)
    by_differences = scipy.optimize.approx_fprime(LOSSES, lambda x: oracle(case, x), 1e-7)
    np.testing.assert_allclose(slopes(case, LOSSES), by_differences, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_only_the_losses_relations_count(case):
    """No factor common to all matters, so that the losses' products with the slopes cancel."""
    assert abs(LOSSES @ slopes(case, LOSSES)) < 1e-12
    assert value(case, 37 * LOSSES) == pytest.approx(value(case, LOSSES), rel=1e-10)
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(slopes(case, LOSSES[order]), slopes(case, LOSSES)[order], rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_equal_losses_and_a_single_one_are_equal(case):
    for losses in ([0.7] * 4, [2.0]):
        assert value(case, losses) == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(slopes(case, losses), 0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_finite_on_ugly_losses(case):
    r = np.random.default_rng(0)
    ugly = [[0.0, 0, 0], [0, 1, 2], [1e-20, 3e-20], [1e15, 1, 2], r.exponential(size=64), [0, 1e15]]
    for losses in ugly:
        assert np.isfinite(slopes(case, losses, tf.float32)).all(), losses
    np.testing.assert_array_equal(slopes(case, [0.0, 0, 0]), 0)


def taml(variant="entropy", steps=2, **settings):
    return TAML(inner_loop=InnerLoop(steps=steps, inner_lr=0.1), variant=variant, **settings)


def parameters(learner):
    """On plain operations, which take less time to start."""
    return tiny.parameters(learner, fused=False)


@functools.cache
def plain_maml():
    return parameters(MAML(inner_loop=InnerLoop(steps=2, inner_lr=0.1)))


@pytest.mark.parametrize("variant", ["entropy", "inequality"])
def test_without_weight_it_is_maml(variant):
    params = parameters(taml(variant, weight=0.0))
    ours = tiny.outcome(params, tiny.episodes(), tiny.perturbed(params))
    tiny.assert_same_gradients(ours, gradients_of_maml(), 1e-12)


@functools.cache
def gradients_of_maml():
    return tiny.outcome(plain_maml(), tiny.episodes(), tiny.perturbed(plain_maml()))


@pytest.mark.parametrize(("before_on", "after_on"), [("support", "query"), ("query", "support")])
def test_the_entropy_variant_has_the_slope_of_its_objective(before_on, after_on):
    settings = {"weight": 0.7, "batch_norm": "inductive", "steps": 1}
    learner = taml(before_on=before_on, after_on=after_on, **settings)
    tiny.assert_gradient_is_the_slope(parameters(learner), tiny.episodes(), directions=1)


def entropy(logits):
    return scipy.stats.entropy(scipy.special.softmax(logits, -1), axis=-1).mean()


def test_the_entropy_variant_wants_indecision_before_and_decision_after():
    params = parameters(taml(weight=0.3))
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    result = params.learner.objective(tiny.context(params), meta, one)
    before = entropy(oracles.logits(meta.network, one.support_images))
    expected = result.loss + 0.3 * (entropy(result.logits) - before)
    assert float(result.objective) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(("case", "before_on"), [("theil", "support"), ("gini", "query")])
def test_the_tasks_gradients_add_up_to_that_of_the_coupled_objective(case, before_on):
    """Σ L_Q(φ_i)/M + λ I(ℓ), with ℓ and I computed apart, moved along random directions."""
    batch, weight = tiny.episodes(n_tasks=3), 0.8
    learner = taml("inequality", weight=weight, measure=name_of(case), before_on=before_on, **CASES[case][0])
    params = parameters(learner)
    meta = tiny.perturbed(params)
    query_losses = tiny.objectives(plain_maml(), batch)
    first = (batch.support_images, batch.support_labels)
    images, labels = first if before_on == "support" else batch[2:4]

    def whole(at):
        losses = [oracles.loss(at.network, x, y.numpy()) for x, y in zip(images, labels)]
        return query_losses(at).mean() + weight * oracle(case, np.array(losses))

    gradients = tiny.outcome(params, batch, meta).gradients
    r, h = np.random.default_rng(2), 1e-6
    for _ in range(2):
        way = [r.normal(size=v.shape) for v in meta.network]
        up, down = (whole(meta._replace(network=[v + s * d for v, d in zip(meta.network, way)])) for s in (h, -h))
        found = sum((g.mean(0) * d).sum() for g, d in zip(gradients, way))
        assert found == pytest.approx((up - down) / (2 * h), rel=1e-5)


def test_the_coupling_ranges_over_the_tasks_of_all_replicas():
    """What a task is told depends on every scalar that was gathered, not on its replica's alone."""
    learner = taml("inequality", weight=0.5)
    told = learner.couple(tf.constant(LOSSES), tiny.context(plain_maml())).numpy()
    np.testing.assert_allclose(told, 0.5 * 5 * slopes("theil", LOSSES), rtol=1e-12)
    moved = LOSSES + [0, 0, 0, 0, 1]
    again = learner.couple(tf.constant(moved), tiny.context(plain_maml())).numpy()
    assert (np.abs(again - told) > 1e-3).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "both"}, "TAML.variant must be one of entropy, inequality"),
        ({"measure": "range"}, "TAML.measure must be one of theil, generalised_entropy"),
        ({"before_on": "all"}, "TAML.before_on must be one of support, query"),
        ({"weight": -1.0}, "TAML.weight must be >= 0"),
        ({"aversion": -0.5}, "Received: TAML.aversion = -0.5"),
        ({"exponent": float("inf")}, "TAML.exponent must be finite"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        taml(**settings)
