# SPDX-License-Identifier: Apache-2.0
"""The aggregators that draw: functions of seed and step, with the stated distribution."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.aggregators import harness
from tf_lwdgh.aggregators import GradDrop, PCGrad
from tf_lwdgh.aggregators.task_gradients import Gram

DRAWS = 4000
J = harness.J


def many(aggregator, rows, draws=DRAWS, seed=harness.SEED):
    """The updates [draws, D] of one variable's rows [K, D] at as many steps."""

    @tf.autograph.experimental.do_not_convert
    def at(step):
        return aggregator(harness.tasks([rows]), harness.clock(step, seed)).gradients[0]

    if draws < 10:
        return np.stack([at(step).numpy() for step in range(draws)])

    @tf.function(autograph=False)
    def run(steps):
        return tf.map_fn(at, steps, fn_output_signature=tf.float64, parallel_iterations=1)

    return run(tf.range(draws, dtype=tf.int64)).numpy()


@pytest.fixture(scope="module")
def dropped():
    return many(GradDrop(), J)


def test_graddrop_keeps_all_of_one_sign(dropped):
    assert set(np.unique(dropped[:, 0])) == {-2.0, 3.0}
    np.testing.assert_array_equal(dropped[:, 1:], 1)  # no conflict, no draw


def test_graddrop_expects_the_mean_and_its_variance_is_the_product_of_the_signs_sums(dropped):
    mean, variance = 1.0, 4 * 6 / 2**2
    assert dropped[:, 0].mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / DRAWS))
    assert dropped[:, 0].var() == pytest.approx(variance, rel=0.05)


def test_graddrop_expects_the_mean_in_every_coordinate():
    r = np.random.default_rng(0)
    rows = np.array([1, 1, 1, -1, -1])[:, None] * r.uniform(0.5, 2, size=(5, 40))
    updates = many(GradDrop(), rows)
    positive, negative = np.maximum(rows, 0).sum(0), np.maximum(-rows, 0).sum(0)
    variance = positive * negative / 5**2
    error = (updates.mean(0) - rows.mean(0)) / np.sqrt(variance / DRAWS)
    assert np.abs(error).max() < 5 and error.std() > 0.5
    np.testing.assert_allclose(updates.var(0), variance, rtol=0.1)
    # One draw a coordinate: signs of different coordinates are independent.
    correlation = np.corrcoef(updates, rowvar=False) - np.eye(40)
    assert np.abs(correlation).max() < 6 / np.sqrt(DRAWS)


def test_graddrop_leaks_the_mean():
    updates = many(GradDrop(leak=0.25), J)
    np.testing.assert_allclose(np.unique(updates[:, 0]), [0.25 - 1.5, 0.25 + 2.25], rtol=1e-14)
    variance = 0.75**2 * 6
    assert updates[:, 0].mean() == pytest.approx(1.0, abs=5 * np.sqrt(variance / DRAWS))
    assert updates[:, 0].var() == pytest.approx(variance, rel=0.05)
    np.testing.assert_allclose(many(GradDrop(leak=1.0), J, 3), np.ones((3, 3)))


def test_graddrop_draws_anew_for_every_variable():
    rows = [np.tile([[-1.0], [1.0]], (1, 200))] * 2
    a, b = harness.aggregate(GradDrop(), rows).gradients
    assert 0.3 < (a.numpy() == b.numpy()).mean() < 0.7


def three_in_conflict():
    """Rows whose surgery depends on the order: each task has two different results."""
    return np.array([[1.0, 0.0, 0.2], [-0.8, 0.6, 0.1], [-0.3, -0.9, 0.4]])


def surgeries(rows):
    """Every update that PCGrad may give, by the orders drawn for the three tasks."""

    def project(i, order):
        g = rows[i]
        for j in order:
            g = g - min(g @ rows[j], 0) / (rows[j] @ rows[j]) * rows[j]
        return g

    others = [[(1, 2), (2, 1)], [(0, 2), (2, 0)], [(0, 1), (1, 0)]]
    choices = itertools.product(*others)
    return np.array([np.mean([project(i, o) for i, o in enumerate(c)], 0) for c in choices])


def test_pcgrad_draws_each_tasks_order_by_itself_and_all_orders_alike():
    rows = three_in_conflict()
    options = surgeries(rows)
    distances = np.abs(options[:, None] - options).max(-1) + np.eye(8)
    assert distances.min() > 1e-3  # all eight differ
    updates = many(PCGrad(), rows, 800)
    gaps = np.abs(updates[:, None] - options).max(-1)
    assert gaps.min(1).max() < 1e-12
    counts = np.bincount(gaps.argmin(1), minlength=8)
    assert np.abs(counts - 100).max() < 5 * np.sqrt(800 / 8 * 7 / 8)


def test_pcgrad_projects_no_gradient_on_itself():
    """Bent over the second, then over the third, the first points away from where it started."""
    angles = np.deg2rad([0, 170, 240])
    rows = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    gaps = np.abs(many(PCGrad(), rows, 60)[:, None] - surgeries(rows)).max(-1)
    assert gaps.min(1).max() < 1e-12


def test_pcgrad_does_not_depend_on_the_order_of_the_tasks_but_for_its_draws():
    rows = three_in_conflict()
    turned = many(PCGrad(), rows[[2, 0, 1]], 800).mean(0)
    spread = surgeries(rows).std(0) / np.sqrt(800)
    assert (np.abs(turned - surgeries(rows).mean(0)) < 5 * spread + 1e-12).all()
    two = rows[:2]
    np.testing.assert_allclose(many(PCGrad(), two, 3), many(PCGrad(), two[::-1], 3), rtol=1e-14)


def test_pcgrad_uses_the_same_orders_in_all_units():
    """One mirror image of the other: the same draws give the mirror image of the update."""
    rows = three_in_conflict()
    for step in range(6):
        a, b = harness.aggregate(PCGrad(), [rows, rows[:, ::-1]], step=step).gradients
        np.testing.assert_allclose(a, b.numpy()[::-1], rtol=1e-14)


@pytest.mark.parametrize("aggregator", [PCGrad(), GradDrop()])
def test_draws_are_a_function_of_seed_and_step(aggregator):
    r = np.random.default_rng(4)
    rows = r.normal(size=(6, 30))
    first = many(aggregator, rows, 5, seed=1)
    np.testing.assert_array_equal(many(aggregator, rows, 5, seed=1), first)
    other = many(aggregator, rows, 6, seed=2)
    different = [a for a in range(5) for b in range(6) if np.abs(first[a] - other[b]).max() > 1e-6]
    assert len(different) == 30  # another seed, and no step of it, repeats them
    assert len(np.unique(first.round(9), axis=0)) == 5


def test_the_two_draw_from_streams_of_their_own():
    """The key that PCGrad is given is not that of GradDrop, of exploration or of a task."""
    keys = [tuple(harness.clock(0).key(name).numpy()) for name in ("PCGrad", "GradDrop", "explore")]
    assert len(set(keys)) == 3
    gram = Gram(tf.constant((three_in_conflict() @ three_in_conflict().T)[None]), tf.ones(1, tf.float64))
    weights = [PCGrad().weights(gram, losses=tf.ones(3), key=tf.constant([7, i], tf.int64)).numpy() for i in range(12)]
    assert len(np.unique(np.round(weights, 9), axis=0)) > 3
