# SPDX-License-Identifier: Apache-2.0
"""Conflict-free inverse gradients (Liu et al. 2024): one direction at equal angles to all."""

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
class ConFIG(GramAggregator):
    """u = unit(pinv(unit rows) 1), d = (Σ g_i·u) u / K (published: without the division by K)."""

    reference: ClassVar[str] = "Liu, Chu, Thuerey: ConFIG, Towards Conflict-free Training, ICLR 2025"
    equation: ClassVar[str] = "d = (1/K)(Σ g_i·u) u, u = unit(Û⁺ 1), Û the tasks' unit gradients"
    traps: ClassVar[str] = "With more tasks than directions no vector has equal angles to all; then the nearest."

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(gram.matrix), 0))
        inverse = tf.math.divide_no_nan(tf.ones_like(norms), norms)
        cosines = gram.matrix * inverse[..., :, None] * inverse[..., None, :]
        # pinv(Û) 1 = Ûᵀ (Û Ûᵀ)⁺ 1: a combination of the unit rows.
        mix = tf.reduce_sum(solvers.pseudo_inverse(cosines), -1)
        along = tf.linalg.matvec(cosines, mix)
        square = tf.reduce_sum(mix * along, -1, keepdims=True)
        length = tf.math.divide_no_nan(tf.reduce_sum(norms * along, -1, keepdims=True), square)
        return length * mix * inverse / tf.cast(tf.shape(norms)[-1], norms.dtype)
