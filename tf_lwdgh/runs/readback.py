# SPDX-License-Identifier: Apache-2.0
"""From metrics on the device to numbers on the host, a window of meta-steps at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Arrays = dict[str, np.ndarray]
Metrics = dict[str, tf.Tensor]
_PER_TASK = ("attention/",)  # groups whose metrics hold one value a task
_PER_PAIR = ("cosines/",)  # one value a pair of tasks


class NonFiniteError(FloatingPointError):
    """The training loss or an update was not finite."""


def read(window: Sequence[Metrics]) -> Arrays:
    """Each metric of a window of S steps as an array [S, ...]; one copy off the device each.

    Those with a value for each pair of tasks stay where they are: see `by_unit`.
    """
    kept = [key for key in window[0] if not key.startswith(_PER_PAIR)]
    return {key: tf.stack([m[key] for m in window]).numpy() for key in kept}


def to_show(window: Sequence[Metrics], first_step: int) -> tuple[int, Metrics]:
    """The step of a window that a picture shows, and its metrics: the last.

    Under explore-exploit the last that exploited, if there is one: where it explored, all weights are
    alike.

    Args:
      window: the metrics of its steps.
      first_step: the number of the first.
    """
    exploited = [i for i, m in enumerate(window) if float(m.get("explore/flag", 0)) == 0]
    shown = exploited[-1] if exploited else len(window) - 1
    return first_step + shown, window[shown]


def by_unit(metrics: Metrics, group: str) -> Arrays:
    """What one meta-step gave as 'group/<unit>', by unit; 'attention' is [K] and 'cosines' [K, K]."""
    prefix = f"{group}/"
    found = {key: value for key, value in metrics.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): value.numpy() for key, value in found.items()}


def check_finite(arrays: Arrays, first_step: int) -> None:
    """Makes sure that loss and update of every step are finite.

    Args:
      arrays: of `read`.
      first_step: the number of the window's first step, counted from 1.

    Raises:
      NonFiniteError: names the window, the first bad step and the metric.
    """
    for key in ("train/loss", "gradient_norm/total"):
        bad = np.flatnonzero(~np.isfinite(arrays[key]))
        if len(bad):
            last = first_step + len(arrays[key]) - 1
            raise NonFiniteError(
                f"{key} is {arrays[key][bad[0]]} at step {first_step + bad[0]} "
                f"(window of steps {first_step} to {last})."
            )


def scalars(arrays: Arrays) -> dict[str, float]:
    """The window's mean of every metric; of the tasks' weights the mean of the largest.

    Matrices are left out: the mean of all pairs' cosines says nothing. Two groups that are measured by unit
    alone have '…/total' too, the mean over the units: 'attention_max' and 'update_cosine'.
    """
    values: dict[str, float] = {}
    for key, array in arrays.items():
        if key.startswith(_PER_TASK):
            group, _, unit = key.partition("/")
            values[f"{group}_max/{unit}"] = float(np.mean(array.max(-1), dtype=np.float64))
        elif not key.startswith(_PER_PAIR):
            values[key] = float(np.mean(array, dtype=np.float64))
    for group in ("attention_max", "update_cosine"):
        of_units = [value for key, value in values.items() if key.startswith(f"{group}/")]
        if of_units:
            values[f"{group}/total"] = float(np.mean(of_units))
    return values


def histograms(windows: Sequence[Arrays]) -> Arrays:
    """All values of the GCI and of the tasks' weights of some windows, flat, by metric."""
    keys = [key for key in windows[0] if key.startswith(("gci/", *_PER_TASK))]
    return {key: np.concatenate([w[key].ravel() for w in windows]) for key in keys}
