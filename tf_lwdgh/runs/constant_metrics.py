# SPDX-License-Identifier: Apache-2.0
"""Which of a run's metrics cannot change in it, or are not there, by its settings."""

from __future__ import annotations

from collections.abc import Iterator

from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.runs.experiment import Experiment


def constant_metrics(experiment: Experiment, n_tasks: int) -> Iterator[str]:
    """The beginnings of the names of those that cannot change or are not there, as far as the settings tell.

    Args:
      experiment: the choices.
      n_tasks: of a meta-batch.
    """
    probability = _fixed_probability(experiment.explore)
    always_mean = isinstance(experiment.aggregator, Mean) or probability == 1
    if always_mean or n_tasks == 1:
        yield "update_cosine/"  # 1
    if always_mean or (n_tasks == 1 and isinstance(experiment.aggregator, LWDGH)):
        yield from ("attention/", "attention_max/")  # 1/K, or none
    if n_tasks == 1:
        yield from ("gci/", "conflict_rate/", "strong_conflict_rate/")  # 0
    if experiment.explore is None or experiment.explore.mode == "off":
        yield "explore/"
    if probability is not None:
        yield "explore/probability"
    if probability in (0, 1):
        yield "explore/flag"
    if not experiment.learning_rate.depends_on_length:
        yield "learning_rate/outer"


def _fixed_probability(explore: ExploreExploit | None) -> float | None:
    """The probability of exploring where it is the same throughout; None where it moves, or there is none."""
    if explore is None or explore.mode == "off":
        return None
    before_turn = explore.mode == "fixed" and explore.transition == 1
    return explore.p_max if explore.p_min == explore.p_max or before_turn else None
