# SPDX-License-Identifier: Apache-2.0
"""Impartial multi-task learning of gradients (Liu et al. 2021): equal projections on all tasks."""

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
class IMTLG(GramAggregator):
    """α ∝ G⁺√diag(G), Σα = 1: the update's projections on all tasks' directions are equal; as published.

    Weights may be negative. Where no such α sums to anything but 0, the mean is taken.
    """

    reference: ClassVar[str] = "Liu et al.: Towards Impartial Multi-task Learning, ICLR 2021"
    equation: ClassVar[str] = "d = Σ α_i g_i, α ∝ G⁺ (‖g_1‖, …, ‖g_K‖), Σ α_i = 1"
    traps: ClassVar[str] = "Nearly opposed gradients give weights of any size; OuterLoop.clip_value bounds them."

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(gram.matrix), 0))
        alpha = tf.linalg.matvec(solvers.pseudo_inverse(gram.matrix), norms)
        total = tf.reduce_sum(alpha, -1, keepdims=True)
        clear = tf.abs(total) > 1e-9 * tf.reduce_sum(tf.abs(alpha), -1, keepdims=True)
        share = 1 / tf.cast(tf.shape(alpha)[-1], alpha.dtype)
        return tf.where(clear, tf.math.divide_no_nan(alpha, total), share)
