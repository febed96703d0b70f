"""The aggregators that need only the K×K inner products of a unit: from a Gram matrix to weights."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.task_gradients import Gram, TaskGradients
from tf_lwdgh.types import Aggregated, Clock


@dataclasses.dataclass(frozen=True)
class GramAggregator(Aggregator):
    """An aggregator whose update in a unit is Σ_k w_k g_k, w a function of the unit's Gram matrix."""

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """The weights of the tasks in every unit.

        Args:
          gram: inner products, [U, K, K] float64.
          losses: [K] float64, the tasks' query losses.
          key: [2] int64, the seed of this step for tf.random.stateless_* with alg='philox'.

        Returns:
          [U, K] float64, finite whatever the Gram matrix; 1/K each gives the mean.
        """
        raise NotImplementedError

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        weights = self.weights(
            tasks.gram,
            losses=tf.cast(tasks.all_losses, tf.float64),
            key=clock.key(type(self).__name__),
        )
        shown = tasks.by_unit(tf.cast(weights, tasks.rows[0].dtype))
        return Aggregated(tasks.weighted(weights), shown, {})
