# SPDX-License-Identifier: Apache-2.0
"""The line of least squares, against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from tf_lwdgh.studies.regression import fit_line


@pytest.mark.parametrize("n, scale", [(3, 1.0), (100, 1.0), (100, 1e-6), (100, 1e9)])
def test_slope_interval_and_r_are_scipys(n, scale):
    r = np.random.default_rng(n)
    x = scale * (5 + r.normal(size=n))
    y = 0.3 * x + scale * r.normal(size=n)
    line, expected = fit_line(x, y), scipy.stats.linregress(x, y)
    assert line.slope == pytest.approx(expected.slope, rel=1e-9)
    assert line.intercept == pytest.approx(expected.intercept, rel=1e-9)
    assert line.interval95 == pytest.approx(1.96 * expected.stderr, rel=1e-6)
    assert line.r == pytest.approx(expected.rvalue, rel=1e-9) and line.n == n
    np.testing.assert_allclose(line.at(x), expected.intercept + expected.slope * x, rtol=1e-9)


def test_points_on_a_level_have_slope_0_and_no_correlation():
    line = fit_line(np.arange(5.0), np.full(5, 2.0))
    assert (line.slope, line.intercept, line.interval95) == (0, 2, 0) and math.isnan(line.r)


@pytest.mark.parametrize("x", [[1.0, 2.0], [3.0, 3.0, 3.0, 3.0], []])
def test_points_without_a_line_are_refused(x):
    with pytest.raises(ValueError, match=f"at least 3 points.*Received: {len(x)} points"):
        fit_line(np.array(x), np.array(x))
