# SPDX-License-Identifier: Apache-2.0
"""A straight line through points by ordinary least squares."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Line(NamedTuple):
    """y = intercept + slope x, with the slope's uncertainty."""

    intercept: float
    slope: float
    interval95: float  # half the width of the slope's interval: 1.96 standard errors
    r: float  # Pearson's; NaN where all y are alike
    n: int

    def at(self, x: np.ndarray) -> np.ndarray:
        """The line's height."""
        return self.intercept + self.slope * x


def fit_line(x: np.ndarray, y: np.ndarray) -> Line:
    """The line of least squares through n points; its standard error has n - 2 degrees of freedom.

    Args:
      x: [n], n >= 3, not all alike.
      y: [n].

    Raises:
      ValueError: too few points, or all x are alike.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 3 or np.ptp(x) == 0:
        raise ValueError(
            f"a line needs at least 3 points whose x are not all alike. Received: {len(x)} points, "
            f"x from {x.min(initial=math.inf):.6g} to {x.max(initial=-math.inf):.6g}."
        )
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    rest = dy - slope * dx
    error = math.sqrt(rest @ rest / (len(x) - 2) / (dx @ dx))
    size = math.sqrt((dx @ dx) * (dy @ dy))
    r = float(dx @ dy) / size if size > 0 else math.nan
    return Line(float(y.mean() - slope * x.mean()), slope, 1.96 * error, r, len(x))
