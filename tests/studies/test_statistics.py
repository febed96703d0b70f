# SPDX-License-Identifier: Apache-2.0
"""Intervals over seeds and tasks: by hand, against simulation, and against other models."""

import numpy as np
import pytest
from scipy import stats

from tf_lwdgh.studies import statistics


def draw(generator, n_seeds, n_tasks, *, seeds, tasks, error, mean=0.0):
    return (
        mean
        + seeds * generator.normal(size=(n_seeds, 1))
        + tasks * generator.normal(size=(1, n_tasks))
        + error * generator.normal(size=(n_seeds, n_tasks))
    )


def test_one_seed_is_the_interval_over_tasks():
    values = np.random.default_rng(0).normal(size=(1, 50))
    ours = statistics.over_seeds_and_tasks(values)
    assert ours.interval95 == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(50))
    assert (ours.n_seeds, ours.n_tasks) == (1, 50)


def test_the_mean_squares_by_hand():
    values = np.array([[1.0, 2, 4], [2, 5, 4]])
    # Means: 3; rows 7/3 and 11/3; columns 1.5, 3.5, 4. Sums of squares: 3·(4/9 + 4/9), 2·(2.25 + .25 + 1),
    # and what is left of 12.
    seeds, tasks = 8 / 3, 7 / 2
    error = (12 - 8 / 3 - 7) / 2
    total = seeds + tasks - error
    freedom = total**2 / (seeds**2 / 1 + tasks**2 / 2 + error**2 / 2)
    ours = statistics.over_seeds_and_tasks(values)
    assert ours.mean == 3
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total / 6)
    assert ours.interval95 == pytest.approx(half, rel=1e-12)


@pytest.mark.parametrize(
    "n_seeds, spread",
    [(2, 0.3), (3, 0.3), (3, 0.0), (5, 1.0)],
)
def test_it_covers_the_truth_in_95_of_100_studies(n_seeds, spread):
    generator = np.random.default_rng(1)
    hits, n = 0, 2000
    for _ in range(n):
        values = draw(generator, n_seeds, 60, seeds=spread, tasks=1, error=1, mean=2)
        ours = statistics.over_seeds_and_tasks(values)
        hits += abs(ours.mean - 2) <= ours.interval95
    # Satterthwaite's degrees of freedom are an approximation, the worst of two seeds.
    assert 0.925 <= hits / n


def test_an_interval_over_tasks_alone_misses_other_seeds():
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(500):
        values = draw(generator, 3, 200, seeds=0.3, tasks=1, error=0.5, mean=0)
        hits += not statistics.over_tasks(values).leaves_zero_out
    assert hits / 500 < 0.6


def test_many_seeds_come_to_a_t_test_of_their_means():
    """Where tasks add nothing of their own, only the seeds' means count."""
    generator = np.random.default_rng(3)
    values = draw(generator, 8, 400, seeds=1, tasks=0, error=1e-3)
    ours = statistics.over_seeds_and_tasks(values)
    means = values.mean(1)
    half = stats.t.ppf(0.975, 7) * means.std(ddof=1) / np.sqrt(8)
    assert ours.interval95 == pytest.approx(half, rel=1e-3)


def test_equal_values_have_no_interval_and_no_nan():
    ours = statistics.over_seeds_and_tasks(np.full((3, 5), 0.25))
    assert (ours.mean, ours.interval95) == (0.25, 0.0) and ours.leaves_zero_out
    assert not statistics.over_seeds_and_tasks(np.zeros((3, 5))).leaves_zero_out


def test_deviation_over_seeds_needs_two():
    values = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert statistics.deviation_over_seeds(values[:1]) is None
    assert statistics.deviation_over_seeds(values) == pytest.approx(np.std([0.5, 1.0], ddof=1))
