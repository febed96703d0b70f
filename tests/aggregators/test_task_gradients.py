# SPDX-License-Identifier: Apache-2.0
"""What is known of the tasks' gradients: mean, Gram matrices, weighted sums, units."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.aggregators import harness
from tests.aggregators.cases import FIRST
from tf_lwdgh.aggregators import Mean, trees

NAMES, LAYERS = harness.NAMES, harness.LAYERS


def test_units_partition_the_variables():
    assert harness.units("variable") == {n: [i] for i, n in enumerate(NAMES)}
    assert harness.units("layer") == {"conv": [0, 1], "head": [2, 3]}
    assert harness.units("model") == {"model": [0, 1, 2, 3]}
    kept = trees.make_units("layer", NAMES, LAYERS, [True, False, False, False])
    assert kept == {"conv": [0]}
    with pytest.raises(ValueError, match="unit must be one of variable, layer, model. Received: 'x'"):
        trees.make_units("x", NAMES, LAYERS)


@pytest.mark.parametrize("n_tasks", [1, 3, 4, 7])
def test_the_mean_and_gci_are_those_of_numpy(n_tasks):
    rows, units = harness.random_rows(n_tasks), harness.units("layer")
    tasks = harness.tasks(rows, units_=units)
    assert tasks.n_tasks == n_tasks and isinstance(tasks.n_tasks, int)
    for ours, g in zip(tasks.mean, rows):
        np.testing.assert_allclose(ours, g.mean(0), rtol=1e-12, atol=1e-15)
    assert tasks.gci.shape == (2, n_tasks)
    for ours, members in zip(tasks.gci, units.values()):
        mine = harness.flat(rows, members)
        np.testing.assert_allclose(ours, oracles.gci(mine, mine.mean(0)), rtol=1e-10, atol=1e-14)


def test_what_is_computed_once_is_kept():
    tasks = harness.tasks(harness.random_rows(2))
    assert tasks.mean is tasks.mean and tasks.gram is tasks.gram and tasks.gci is tasks.gci


@pytest.mark.parametrize("unit", trees.UNITS)
def test_gram_matrices_times_the_squared_scale_are_the_inner_products(unit):
    rows, units = harness.random_rows(4), harness.units(unit)
    gram = harness.tasks(rows, units_=units).gram
    assert gram.matrix.dtype == gram.scale.dtype == tf.float64
    for matrix, scale, members in zip(gram.matrix.numpy(), gram.scale.numpy(), units.values()):
        mine = harness.flat(rows, members)
        assert scale == pytest.approx(np.sqrt((mine * mine).sum(1)).max(), rel=1e-14)
        np.testing.assert_allclose(scale**2 * matrix, mine @ mine.T, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.abs(matrix).max() <= 1 + 1e-14


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e15, 1e30])
def test_gram_matrices_neither_overflow_nor_underflow(scale):
    rows = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    plain = harness.tasks([rows]).gram
    gram = harness.tasks([rows * np.float32(scale)]).gram
    np.testing.assert_allclose(gram.matrix, plain.matrix, rtol=0, atol=1e-6)
    np.testing.assert_allclose(gram.scale / plain.scale, [scale], rtol=1e-6)


def test_gram_matrices_of_zeros_are_zero():
    gram = harness.tasks([np.zeros((3, 2)), np.eye(3, 2)]).gram
    np.testing.assert_array_equal(gram.matrix, [np.zeros((3, 3)), np.diag([1, 1, 0])])
    np.testing.assert_array_equal(gram.scale, [0, 1])


def test_weighted_sums_are_by_unit_and_the_mean_outside():
    rows = harness.random_rows(3)
    tasks = harness.tasks(rows, units_={"conv": [0, 1], "bias": [3]})
    weights = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 1.0]])
    ours = tasks.weighted(tf.constant(weights))
    expected = [np.tensordot(weights[0], g, 1) for g in rows[:2]] + [rows[2].mean(0), rows[3][2]]
    for a, b in zip(ours, expected):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    named = tasks.by_unit(tf.constant(weights))
    assert list(named) == ["conv", "bias"]
    np.testing.assert_array_equal(named["bias"], weights[1])


@pytest.mark.parametrize("case", FIRST.values(), ids=list(FIRST))
def test_variables_of_no_unit_get_the_mean_from_every_aggregator(case):
    n_tasks = next(k for k in (3, 4) if k not in case.refuses)
    conflicting = np.array([[-4, 1, 1], [6, 1, 1], [1, -3, 0.5], [0.3, 0.2, 2]])[:n_tasks]
    out = harness.aggregate(case.aggregator, [conflicting] * 3, units_={"inside": [1]})
    for i in (0, 2):
        np.testing.assert_allclose(out.gradients[i], conflicting.mean(0), rtol=1e-12)
    moved = np.abs(out.gradients[1] - conflicting.mean(0)).max() > 1e-2
    assert moved == (not isinstance(case.aggregator, Mean))
