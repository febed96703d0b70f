# SPDX-License-Identifier: Apache-2.0
"""The report of the tasks' conflict, against NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.aggregators import harness
from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators.conflict_report import ConflictReport, share_below


def cosine(a, b):
    length = np.sqrt(a @ a) * np.sqrt(b @ b)
    return a @ b / length if length > 0 else 0.0


def expected_report(rows, update, units, threshold):
    """Every metric from its definition."""
    out, of_units = {}, {"gci": [], "conflict_rate": [], "strong_conflict_rate": []}
    for name, members in units.items():
        mine = harness.flat(rows, members)
        pairs = list(itertools.permutations(range(len(mine)), 2))
        cosines = np.array([[cosine(a, b) for b in mine] for a in mine])
        values = {
            "gci": oracles.gci(mine, mine.mean(0)).sum(),
            "conflict_rate": sum(cosines[p] < 0 for p in pairs) / max(len(pairs), 1),
            "strong_conflict_rate": sum(cosines[p] < threshold for p in pairs) / max(len(pairs), 1),
        }
        out |= {f"{group}/{name}": value for group, value in values.items()}
        out[f"cosines/{name}"] = cosines
        out[f"update_cosine/{name}"] = cosine(harness.flat_update(update, members), mine.mean(0))
        for group, value in values.items():
            of_units[group].append(value)
    out["gci/total"] = np.sum(of_units["gci"])
    for group in ("conflict_rate", "strong_conflict_rate"):
        out[f"{group}/total"] = np.mean(of_units[group])
    return out


@pytest.mark.parametrize("n_tasks", [1, 2, 4, 7])
@pytest.mark.parametrize("unit", trees.UNITS)
@pytest.mark.parametrize("threshold", [-0.1, 0.3])
def test_it_equals_numpy(n_tasks, unit, threshold):
    rows, units = harness.random_rows(n_tasks), harness.units(unit)
    update = [g[0] for g in harness.random_rows(1, seed=9)]
    report = ConflictReport(threshold=threshold)
    ours = report.measure(harness.tasks(rows, units_=units), [tf.constant(g) for g in update])
    expected = expected_report(rows, update, units, threshold)
    assert set(ours) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_published_example_by_hand():
    """J's rows have product -22, norms √18 and √38; ḡ is (1, 1, 1), and the update ḡ itself."""
    tasks = harness.tasks([harness.J])
    ours = ConflictReport().measure(tasks, tasks.mean)
    np.testing.assert_allclose(ours["cosines/v0"][0, 1], -22 / np.sqrt(18 * 38), rtol=1e-6)
    expected = np.sqrt(18) + 2 / np.sqrt(3) + np.sqrt(38) - 8 / np.sqrt(3)
    np.testing.assert_allclose(ours["gci/v0"], expected, rtol=1e-12)
    assert ours["conflict_rate/v0"] == ours["strong_conflict_rate/v0"] == 1
    np.testing.assert_allclose(ours["update_cosine/v0"], 1, rtol=1e-14)
    strict = ConflictReport(threshold=-0.9).measure(tasks, tasks.mean)
    assert strict["strong_conflict_rate/total"] == 0 and strict["conflict_rate/total"] == 1


def test_zero_gradients_conflict_with_none():
    rows = [np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])]
    tasks = harness.tasks(rows)
    ours = ConflictReport(threshold=0.0).measure(tasks, [tf.constant([0.0, 0.0], tf.float64)])
    np.testing.assert_array_equal(ours["cosines/v0"], [[0, 0, 0], [0, 1, -1], [0, -1, 1]])
    np.testing.assert_allclose(ours["conflict_rate/v0"], 1 / 3)  # of three pairs
    assert ours["update_cosine/v0"] == 0 and ours["gci/v0"] == 2


def test_without_cosines_there_is_no_gram_matrix():
    tasks = harness.tasks(harness.random_rows(3), units_=harness.units("layer"))
    ours = ConflictReport(cosines=False).measure(tasks, tasks.mean)
    groups = {name.split("/")[0] for name in ours}
    assert groups == {"gci", "update_cosine"} and "gram" not in tasks._known


def test_shares_are_of_pairs_of_different_tasks():
    cosines = np.array([[[1.0, -0.5], [-0.5, 1.0]], [[1.0, 0.2], [0.2, 1.0]]], np.float32)
    np.testing.assert_array_equal(share_below(tf.constant(cosines), 0.0), [1, 0])
    np.testing.assert_array_equal(share_below(tf.constant(cosines), 1.5), [1, 1])
    np.testing.assert_array_equal(share_below(tf.ones([1, 1, 1]), 1.5), [0])


@pytest.mark.parametrize("threshold", [-1.5, 2.0, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"ConflictReport.threshold .* in \[-1, 1\].* = {threshold}"):
        ConflictReport(threshold=threshold)
