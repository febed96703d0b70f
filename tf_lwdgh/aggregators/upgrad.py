# SPDX-License-Identifier: Apache-2.0
"""Unconflicting projection of gradients (Quinton & Rey 2024), of Jacobian descent."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators import solvers
from tf_lwdgh.aggregators.gram_weights import GramAggregator
from tf_lwdgh.aggregators.task_gradients import Gram


@config.configurable
@dataclasses.dataclass(frozen=True)
class UPGrad(GramAggregator):
    """The mean of the tasks' gradients, each projected on the dual cone of all; on mean scale as published.

    The update conflicts with no task. Solved exactly, where TorchJD adds 1e-4 to the Gram matrix.
    """

    reference: ClassVar[str] = "Quinton, Rey: Jacobian Descent for Multi-Objective Optimization, 2024"
    equation: ClassVar[str] = "d = (1/K) Σ π(g_i), π(g) = the nearest vector with π·g_j ≥ 0 for all j"

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        count = tf.shape(gram.matrix)[-1]
        each = tf.repeat(gram.matrix[:, None], count, axis=1)
        lower = tf.eye(count, batch_shape=[tf.shape(each)[0]], dtype=each.dtype)
        return tf.reduce_mean(solvers.cone_weights(each, lower), 1)
