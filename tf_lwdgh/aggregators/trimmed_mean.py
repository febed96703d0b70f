# SPDX-License-Identifier: Apache-2.0
"""The coordinate-wise trimmed mean (Yin et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Aggregated, Clock


@config.configurable
@dataclasses.dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """In each coordinate, the mean without the `trim` largest and the `trim` smallest values.

    It needs all tasks' values of a coordinate: with R replicas each holds all K gradients, R times the
    memory of its own, after R all-reduces of their size.

    Attributes:
      unit: what conflict is measured on; the method works on coordinates.
      trim: values left out at either end, at least 0; K must be above 2 trim.
    """

    trim: int = 1

    reference: ClassVar[str] = "Yin et al.: Byzantine-Robust Distributed Learning, ICML 2018"
    equation: ClassVar[str] = "d = mean of the K − 2t middle values of each coordinate"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("trim", self.trim >= 0, "must be at least 0")

    def check(self, n_tasks: int) -> None:
        if 1 < n_tasks <= 2 * self.trim:
            raise ValueError(
                "TrimmedMean needs more than 2 TrimmedMean.trim tasks in a meta-batch. Received: "
                f"OuterLoop.meta_batch_size = {n_tasks}, TrimmedMean.trim = {self.trim}."
            )

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        if isinstance(tasks.n_tasks, int):
            self.check(tasks.n_tasks)
        turns = tasks.collective.in_turn(tasks.rows)
        everyone = [tf.concat(g, 0) for g in zip(*turns)]
        return Aggregated(tasks.or_mean([self._middle(g) for g in everyone]), {}, {})

    def _middle(self, rows: tf.Tensor) -> tf.Tensor:
        """[K, *shape] -> [*shape]; one task is its own middle."""
        if not self.trim:
            return tf.reduce_mean(rows, 0)
        trim = tf.minimum(self.trim, (tf.shape(rows)[0] - 1) // 2)
        return tf.reduce_mean(tf.sort(rows, axis=0)[trim : tf.shape(rows)[0] - trim], 0)
