# SPDX-License-Identifier: Apache-2.0
"""Means over seeds and tasks, and how sure they are.

All runs of a study are judged on the same T tasks, so S seeds give a table [S, T]: seeds and tasks are
crossed. A paired difference d[s, t] is taken as

  d[s, t] = μ + a_s + b_t + e_st

with independent a, b, e (two-way random effects): a_s is what a seed adds, b_t what a task adds. The
variance of the mean is σ²_a/S + σ²_b/T + σ²_e/(S T), estimated from the mean squares of the table, and
its degrees of freedom are Satterthwaite's (Satterthwaite 1946, Biometrics Bulletin 2). An interval over
tasks alone would leave out the seeds' variance, which here is as large as the methods' differences.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import stats

from tf_lwdgh.outer.evaluation import mean_and_interval


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
      mean: of all seeds and tasks.
      interval95: half the width of the interval; infinite where it can't be told.
      n_seeds: S.
      n_tasks: T.
    """

    mean: float
    interval95: float
    n_seeds: int
    n_tasks: int

    @property
    def leaves_zero_out(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return abs(self.mean) > self.interval95


def over_tasks(values: np.ndarray) -> Estimate:
    """The mean with 1.96 s/√T over tasks, of each task's mean over seeds: for these runs, not others.

    Args:
      values: [S, T].
    """
    mean, interval = mean_and_interval(np.mean(np.asarray(values, np.float64), axis=0))
    return Estimate(mean, interval, *values.shape)


def deviation_over_seeds(values: np.ndarray) -> float | None:
    """The standard deviation (ddof = 1) of the seeds' means; None of one seed.

    Args:
      values: [S, T].
    """
    return float(np.std(np.mean(values, axis=1), ddof=1)) if len(values) > 1 else None


def over_seeds_and_tasks(values: np.ndarray) -> Estimate:
    """The mean with a 95 % interval for new seeds and new tasks, of the model above.

    One seed says nothing of others: then it is `over_tasks`.

    Args:
      values: [S, T], T at least 2.
    """
    values = np.asarray(values, np.float64)
    n_seeds, n_tasks = values.shape
    if n_seeds == 1:
        return over_tasks(values)
    mean, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns[None, :] + mean
    degrees = np.array([n_seeds - 1, n_tasks - 1, (n_seeds - 1) * (n_tasks - 1)], np.float64)
    seeds = n_tasks * np.sum((rows - mean) ** 2) / degrees[0]
    tasks = n_seeds * np.sum((columns - mean) ** 2) / degrees[1]
    error = np.sum(rest**2) / degrees[2]
    # A mean square below the error's means a variance estimated as 0, not a negative one.
    terms = np.array([max(seeds, error), max(tasks, error), -error])
    total = terms.sum()
    if total <= 0:
        return Estimate(float(mean), 0.0, n_seeds, n_tasks)
    freedom = max(total**2 / np.sum(terms**2 / degrees), degrees[0])
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total / (n_seeds * n_tasks))
    return Estimate(float(mean), float(half), n_seeds, n_tasks)
