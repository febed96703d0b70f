# SPDX-License-Identifier: Apache-2.0
"""Gradient episodic memory's projection (Lopez-Paz & Ranzato 2017): of the mean, once."""

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
class DualProj(GramAggregator):
    """The mean gradient projected on the dual cone of the tasks': it conflicts with none; mean scale."""

    reference: ClassVar[str] = "Lopez-Paz, Ranzato: Gradient Episodic Memory, NeurIPS 2017"
    equation: ClassVar[str] = "d = the vector nearest to ḡ with d·g_j ≥ 0 for all j"

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        share = 1 / tf.cast(tf.shape(gram.matrix)[-1], gram.matrix.dtype)
        return solvers.cone_weights(gram.matrix, tf.fill(tf.shape(gram.matrix)[:-1], share))
