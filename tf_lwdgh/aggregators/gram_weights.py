# SPDX-License-Identifier: Apache-2.0
"""The aggregators that need only the K×K inner products of a unit: from a Gram matrix to weights."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.task_gradients import Gram, TaskGradients
from tf_lwdgh.types import Aggregated, Clock

LARGEST = 1e30  # of a weight, so that none overflows float32


@dataclasses.dataclass(frozen=True)
class GramAggregator(Aggregator):
    """An aggregator whose update in a unit is Σ_k w_k g_k, w a function of the unit's Gram matrix."""

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """The weights of the tasks in every unit.

        Args:
          gram: inner products, [U, K, K] float64, finite.
          losses: [K] float64, the tasks' query losses, finite.
          key: [2] int64, the seed of this step for tf.random.stateless_* with alg='philox'.

        Returns:
          [U, K] float64, finite whatever the Gram matrix; 1/K each gives the mean.
        """
        raise NotImplementedError

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        losses = tf.cast(tasks.all_losses, tf.float64)
        gram, usable = _usable(tasks.gram, losses)
        weights = self.weights(
            gram,
            losses=tf.where(tf.math.is_finite(losses), losses, tf.ones_like(losses)),
            key=clock.key(type(self).__name__),
        )
        weights = tf.clip_by_value(weights, -LARGEST, LARGEST)
        weights = tf.where(usable, weights, tf.constant(float("nan"), weights.dtype))
        shown = tasks.by_unit(tf.cast(weights, tasks.rows[0].dtype))
        return Aggregated(tasks.weighted(weights), shown, {})


def _usable(gram: Gram, losses: tf.Tensor) -> tuple[Gram, tf.Tensor]:
    """The Gram matrices, zeros where one is not finite, and [U, 1] whether gradients and losses are.

    Solvers and eigen-solvers may never end on NaN; weights of NaN let the run stop with its own message.
    """
    finite = tf.math.is_finite(gram.matrix)
    usable = tf.reduce_all(finite, [1, 2]) & tf.reduce_all(tf.math.is_finite(losses))
    matrix = tf.where(finite, gram.matrix, tf.zeros_like(gram.matrix))
    scale = tf.where(tf.math.is_finite(gram.scale), gram.scale, tf.zeros_like(gram.scale))
    return Gram(matrix, scale), usable[:, None]
