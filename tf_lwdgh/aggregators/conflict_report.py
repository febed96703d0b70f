# SPDX-License-Identifier: Apache-2.0
"""What is reported of the tasks' conflict, whatever the aggregator: GCI, cosines, rates of conflict."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Tensors

Metrics = dict[str, tf.Tensor]


@config.configurable
@dataclasses.dataclass(frozen=True)
class ConflictReport:
    """What is measured in every meta-step.

    Attributes:
      cosines: the cosine of every pair of tasks, and the rates of conflict. On several replicas that
        costs as many all-reduces of the tasks' gradients as there are replicas.
      threshold: pairs whose cosine is below it are counted as in strong conflict, in [-1, 1].
    """

    cosines: bool = True
    threshold: float = -0.1

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ValueError(
                "ConflictReport.threshold is a cosine and must be in [-1, 1]. "
                f"Received: ConflictReport.threshold = {self.threshold!r}."
            )

    def measure(self, tasks: TaskGradients, update: Tensors) -> Metrics:
        """The metrics of one meta-step.

        Args:
          tasks: the tasks' gradients.
          update: what the aggregator made of them, one tensor a variable.

        Returns:
          'gci/<unit>', Σ_k GCI_k, and 'gci/total'; 'update_cosine/<unit>', of update and mean; with
          `cosines` also 'cosines/<unit>' [K, K], 'conflict_rate/<unit>', the share of pairs whose
          cosine is below 0, 'strong_conflict_rate/<unit>', below the threshold, and '…/total', the mean
          over the units.
        """
        sums = tf.reduce_sum(tasks.gci, -1)
        metrics = _named("gci", tasks.by_unit(sums)) | {"gci/total": tf.reduce_sum(sums)}
        metrics |= _named("update_cosine", self._update_cosines(tasks, update))
        if self.cosines:
            cosines = cosine_matrices(tasks)
            metrics |= _named("cosines", tasks.by_unit(cosines))
            metrics |= self._rates(tasks, cosines)
        return metrics

    def _rates(self, tasks: TaskGradients, cosines: tf.Tensor) -> Metrics:
        metrics: Metrics = {}
        for name, below in (("conflict_rate", 0.0), ("strong_conflict_rate", self.threshold)):
            rates = share_below(cosines, below)
            metrics |= _named(name, tasks.by_unit(rates)) | {f"{name}/total": tf.reduce_mean(rates)}
        return metrics

    @staticmethod
    def _update_cosines(tasks: TaskGradients, update: Tensors) -> Metrics:
        updates = trees.measured_units(update, tasks.units)
        found = [tf.tensordot(u.directions, m.directions, 1) for u, m in zip(updates, tasks.unit_means)]
        return tasks.by_unit(tf.clip_by_value(tf.stack(found), -1, 1))


def cosine_matrices(tasks: TaskGradients) -> tf.Tensor:
    """The cosine of every pair of tasks in every unit: [U, K, K] float32; 0 where a gradient is 0."""
    matrix = tasks.gram.matrix
    norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(matrix), 0))
    cosines = tf.math.divide_no_nan(matrix, norms[:, :, None] * norms[:, None, :])
    return tf.cast(tf.clip_by_value(cosines, -1, 1), tf.float32)


def share_below(cosines: tf.Tensor, threshold: float) -> tf.Tensor:
    """The share of pairs of different tasks whose cosine is below a threshold: [U, K, K] -> [U]."""
    others = 1 - tf.eye(tf.shape(cosines)[-1], dtype=cosines.dtype)
    below = tf.cast(cosines < threshold, cosines.dtype) * others
    return tf.math.divide_no_nan(tf.reduce_sum(below, [1, 2]), tf.reduce_sum(others))


def _named(group: str, by_unit: Metrics) -> Metrics:
    return {f"{group}/{unit}": value for unit, value in by_unit.items()}
