# SPDX-License-Identifier: Apache-2.0
"""Correlations within meta-batches, against SciPy and a resampling written as a loop."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.stats

from tests.studies.probed_runs import made_up
from tf_lwdgh.studies.probe_summary import QUANTITIES, Correlation, compared, summarise


def pearson(x, y):
    """Of values [S, K], each less its meta-batch's mean."""
    x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
    return scipy.stats.pearsonr(x.ravel(), y.ravel()).statistic


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_r_is_pearsons_of_what_is_left_when_each_meta_batchs_mean_is_taken_off(quantity):
    probe = made_up()
    other = {"gradient_norm": probe.gradient_norms, "cosine": probe.cosines}.get(quantity)
    if other is None:
        other = np.repeat(probe.losses[:, None], 3, axis=1)
    summary = summarise(probe)
    each = [pearson(probe.weights[:, u], other[:, u]) for u in range(3)]
    for unit, expected in zip(probe.units, each):
        assert summary.units[unit].correlations[quantity].r == pytest.approx(expected, abs=1e-12)
    assert summary.pooled.correlations[quantity].r == pytest.approx(np.mean(each), abs=1e-12)


def test_the_interval_resamples_whole_meta_batches():
    probe, r = made_up(), np.random.default_rng(5)
    drawn = []
    for _ in range(3000):
        rows = r.integers(0, 30, 30)
        drawn.append(pearson(probe.weights[rows, 1], probe.cosines[rows, 1]))
    ours = summarise(probe).units["conv2/kernel"].correlations["cosine"]
    np.testing.assert_allclose((ours.low, ours.high), np.percentile(drawn, [2.5, 97.5]), atol=0.015)
    assert ours.low < ours.r < ours.high


def test_the_interval_holds_no_correlation_in_about_95_of_100_draws():
    def misses(seed):
        probe = made_up(40, 1, seed=seed)
        interval = summarise(probe, resamples=400).pooled.correlations["loss"]  # independent of it
        return not interval.low <= 0 <= interval.high

    assert 3 <= sum(misses(seed) for seed in range(200)) <= 22


def test_shifts_of_a_meta_batch_and_a_units_scale_change_nothing():
    probe = made_up()
    shifts = np.random.default_rng(1).normal(size=(30, 1))
    moved = dataclasses.replace(
        probe,
        losses=probe.losses + shifts,
        gradient_norms=probe.gradient_norms * np.array([1, 7, 0.01])[:, None] + shifts[..., None],
    )
    before, after = (summarise(p).pooled.correlations for p in (probe, moved))
    for quantity in QUANTITIES:
        np.testing.assert_allclose(before[quantity], after[quantity], atol=1e-9)


def test_weights_that_fall_in_line_with_the_norm_give_minus_one():
    probe = made_up()
    weights = 0.25 - 1e-3 * (probe.gradient_norms - probe.gradient_norms.mean(-1, keepdims=True))
    line = summarise(dataclasses.replace(probe, weights=weights)).pooled
    np.testing.assert_allclose(line.correlations["gradient_norm"], [-1, -1, -1], atol=1e-9)


def test_sizes_of_steps_and_weights_are_means_over_the_meta_batches():
    probe = made_up()
    summary = summarise(probe)
    unit = summary.units["conv1/kernel"]
    ratios = [u / m for u, m in zip(probe.update_norms[:, 0], probe.mean_norms[:, 0])]
    assert unit.effective_step == pytest.approx(np.mean(ratios))
    assert unit.largest_weight == pytest.approx(np.mean([max(w) for w in probe.weights[:, 0]]))
    whole = [np.hypot.reduce(u) / np.hypot.reduce(m) for u, m in zip(probe.update_norms, probe.mean_norms)]
    assert summary.pooled.effective_step == pytest.approx(np.mean(whole))


def test_weights_alike_up_to_rounding_have_no_correlation_and_json_has_null():
    probe = made_up()
    rounding = 1 + np.random.default_rng(0).uniform(-1e-7, 1e-7, probe.weights.shape)
    flat = probe.weights.copy()
    flat[:, 0] = 0.25 * rounding[:, 0]
    summary = summarise(dataclasses.replace(probe, weights=flat))
    assert math.isnan(summary.units["conv1/kernel"].correlations["loss"].r)
    rest = [summary.units[u].correlations["cosine"].r for u in probe.units[1:]]
    assert summary.pooled.correlations["cosine"].r == pytest.approx(np.mean(rest))
    everywhere = summarise(dataclasses.replace(probe, weights=0.25 * rounding))
    plain = json.loads(json.dumps(everywhere.as_dict(), allow_nan=False))
    assert plain["pooled"]["correlations"]["loss"] == {"r": None, "low": None, "high": None}
    assert plain["n_batches"] == 30 and plain["n_tasks"] == 4 and set(plain["units"]) == set(probe.units)


def test_the_summary_is_the_same_every_time_and_reads_well():
    assert summarise(made_up()).as_dict() == summarise(made_up()).as_dict()
    assert str(Correlation(-0.5, -0.61, 0.2)) == "r = −0.50 [−0.61, +0.20]"
    assert str(Correlation(math.nan, math.nan, math.nan)) == "r undefined"


def test_compared_gives_every_unit_the_tasks_losses():
    probe = made_up()
    np.testing.assert_array_equal(compared(probe, "loss")[:, 2], probe.losses)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="resamples must be at least 2. Received: resamples = 1"):
        summarise(made_up(), resamples=1)
