# SPDX-License-Identifier: Apache-2.0
"""What a probe comes to: with what, within a meta-batch, the tasks' weights go up and down.

Weights sum to 1 in every meta-batch, so only differences between its tasks count: of weights and of what
they are compared with, each meta-batch's mean over its K tasks is taken off first (in each unit), and then
follows Pearson's r over all tasks of all S meta-batches. Tasks of one meta-batch are not independent, so the
95 % interval resamples whole meta-batches with replacement (the percentiles 2.5 and 97.5).

Over all units the values are taken in standard deviations of their unit: else the few units with large
gradients would decide. So pooled, r is the mean of the units' r.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from tf_lwdgh.studies.probe import Probe

QUANTITIES = ("gradient_norm", "loss", "cosine")  # what the weights are compared with
_RESAMPLES = 2000
_ROUNDING = 1e-6  # of the values' size: a spread below it is float32's


class Correlation(NamedTuple):
    """Pearson's r with its 95 % interval; NaN where one of the two does not vary."""

    r: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.r):
            return "r undefined"
        return f"r = {self.r:+.2f} [{self.low:+.2f}, {self.high:+.2f}]".replace("-", "−")


@dataclasses.dataclass(frozen=True)
class UnitSummary:
    """Of one unit, or of all together.

    Attributes:
      correlations: of the weight with each of QUANTITIES, within meta-batches.
      effective_step: the mean over the meta-batches of the update's norm over the mean's.
      largest_weight: the mean of the largest weight of a meta-batch, in [1/K, 1].
    """

    correlations: dict[str, Correlation]
    effective_step: float
    largest_weight: float


@dataclasses.dataclass(frozen=True)
class ProbeSummary:
    """The summary of one probe.

    Attributes:
      about: run, step, split, seed, rule, n_batches, n_tasks (of a meta-batch).
      pooled: all units together, each on its own scale; the effective step is that of the whole update.
      units: of each unit.
    """

    about: dict[str, Any]
    pooled: UnitSummary
    units: dict[str, UnitSummary]

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON values; null where a number is not defined."""
        units = {unit: _plain(summary) for unit, summary in self.units.items()}
        return {**self.about, "pooled": _plain(self.pooled), "units": units}


def summarise(probe: Probe, *, resamples: int = _RESAMPLES, seed: int = 0) -> ProbeSummary:
    """Summarises a probe.

    Args:
      probe: the measurements.
      resamples: how many times the meta-batches are drawn for an interval, at least 2.
      seed: of those draws.

    Raises:
      ValueError: too few resamples.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2. Received: resamples = {resamples!r}.")
    s, k = probe.losses.shape
    counts = np.random.default_rng(seed).multinomial(s, np.full(s, 1 / s), resamples)
    moments = {name: _moments(probe.weights, compared(probe, name)) for name in QUANTITIES}
    largest, steps = probe.weights.max(-1), probe.effective_steps
    units = {
        unit: UnitSummary(
            {name: _correlation(m[..., u], counts) for name, m in moments.items()},
            float(steps[:, u].mean()),
            float(largest[:, u].mean()),
        )
        for u, unit in enumerate(probe.units)
    }
    pooled = UnitSummary(
        {name: _correlation(m.sum(-1), counts) for name, m in moments.items()},
        float(probe.whole_effective_steps.mean()),
        float(largest.mean()),
    )
    about = {"run": probe.run_dir, "step": probe.step, "split": probe.split, "seed": probe.seed}
    about |= {"rule": probe.rule, "n_batches": s, "n_tasks": k}
    return ProbeSummary(about, pooled, units)


def compared(probe: Probe, quantity: str) -> np.ndarray:
    """One of QUANTITIES of every task in every unit: [S, U, K]."""
    if quantity == "loss":
        return np.broadcast_to(probe.losses[:, None], probe.weights.shape)
    return {"gradient_norm": probe.gradient_norms, "cosine": probe.cosines}[quantity]


def centred(values: np.ndarray) -> np.ndarray:
    """Values [S, U, K] less their mean over the K tasks; 0 in the units where rounding is all that is left."""
    differences = values - values.mean(-1, keepdims=True)
    size, spread = (np.abs(v).max((0, 2), keepdims=True) for v in (values, differences))
    return np.where(spread > _ROUNDING * size, differences, 0.0)


def standardised(values: np.ndarray) -> np.ndarray:
    """Centred values [S, U, K] in standard deviations of their unit; 0 where that is 0."""
    differences = centred(values)
    deviation = np.sqrt((differences**2).mean((0, 2), keepdims=True))
    zeros = np.zeros_like(differences)
    return np.divide(differences, deviation, out=zeros, where=deviation > 0)


def _moments(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Σ xy, Σ xx, Σ yy over a meta-batch's tasks: [S, U, K] -> [3, S, U], on every unit's own scale."""
    x, y = standardised(x), standardised(y)
    both = x.any((0, 2)) & y.any((0, 2))
    return np.where(both, np.stack([(x * y).sum(-1), (x * x).sum(-1), (y * y).sum(-1)]), 0.0)


def _correlation(moments: np.ndarray, counts: np.ndarray) -> Correlation:
    """From [3, S], and how often each of B resamples holds each meta-batch, [B, S]."""
    r = _pearson(moments.sum(-1))
    drawn = _pearson(moments @ counts.T)
    if np.isnan(r) or np.isnan(drawn).all():
        return Correlation(float(r), math.nan, math.nan)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Correlation(float(r), float(low), float(high))


def _pearson(moments: np.ndarray) -> np.ndarray:
    """r of [3, ...] sums; NaN where one of the two does not vary."""
    xy, xx, yy = moments
    size = np.sqrt(xx * yy)
    return np.divide(xy, size, out=np.full_like(size, np.nan), where=size > 0)


def _plain(summary: UnitSummary) -> dict[str, Any]:
    correlations = {
        name: {part: _number(v) for part, v in c._asdict().items()} for name, c in summary.correlations.items()
    }
    numbers = {n: _number(getattr(summary, n)) for n in ("effective_step", "largest_weight")}
    return {"correlations": correlations, **numbers}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
