# SPDX-License-Identifier: Apache-2.0
"""(Multi-)Krum (Blanchard et al. 2017): the gradients that lie nearest to their neighbours."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators.gram_weights import GramAggregator
from tf_lwdgh.aggregators.task_gradients import Gram, TaskGradients
from tf_lwdgh.types import Aggregated, Clock


@config.configurable
@dataclasses.dataclass(frozen=True)
class Krum(GramAggregator):
    """The mean of the `selected` gradients whose squared distances to their K − f − 2 nearest sum to least.

    Attributes:
      f: how many tasks may be outliers, at least 0; K must be at least f + 3.
      selected: how many gradients are averaged, in [1, K]; 1 is Krum, more Multi-Krum.
    """

    f: int = 1
    selected: int = 1

    reference: ClassVar[str] = "Blanchard et al.: Machine Learning with Adversaries, NeurIPS 2017"
    equation: ClassVar[str] = "d = g_i, i = argmin Σ over the K − f − 2 nearest j of ‖g_i − g_j‖²"
    traps: ClassVar[str] = (
        "Made against faulty workers: of tasks that merely differ it forgets all but one. With K = f + 3 a "
        "gradient is judged by its one nearest neighbour, so two are equally near and the first is taken."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("f", self.f >= 0, "must be at least 0")
        self.require("selected", self.selected >= 1, "must be at least 1")

    def check(self, n_tasks: int) -> None:
        if n_tasks < max(self.f + 3, self.selected):
            raise ValueError(
                "Krum needs at least Krum.f + 3 tasks in a meta-batch, and at least Krum.selected. Received: "
                f"OuterLoop.meta_batch_size = {n_tasks}, Krum.f = {self.f}, Krum.selected = {self.selected}."
            )

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        if isinstance(tasks.n_tasks, int):
            self.check(tasks.n_tasks)
        return super().__call__(tasks, clock)

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        matrix = gram.matrix
        count = tf.shape(matrix)[-1]
        squares = tf.linalg.diag_part(matrix)
        distances = tf.maximum(squares[..., :, None] + squares[..., None, :] - 2 * matrix, 0)
        distances = tf.linalg.set_diag(distances, tf.fill(tf.shape(squares), tf.float64.max))
        nearest = tf.sort(distances, axis=-1)[..., : count - self.f - 2]
        _, best = tf.math.top_k(-tf.reduce_sum(nearest, -1), self.selected)
        return tf.reduce_sum(tf.one_hot(best, count, dtype=matrix.dtype), -2) / self.selected
