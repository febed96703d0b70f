# SPDX-License-Identifier: Apache-2.0
"""Aligned multi-task learning (Senushkin et al. 2023): gradients made orthogonal and equal."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators.gram_weights import GramAggregator
from tf_lwdgh.aggregators.task_gradients import Gram


@config.configurable
@dataclasses.dataclass(frozen=True)
class AlignedMTL(GramAggregator):
    """w = √λ_min V Λ^(−½) Vᵀ (1/K), V and Λ the Gram matrix's, λ_min its least eigenvalue above 0.

    Attributes:
      tolerance: eigenvalues below it, as a share of the largest, count as 0; in (0, 1).
    """

    tolerance: float = 1e-10

    reference: ClassVar[str] = "Senushkin et al.: Independent Component Alignment, CVPR 2023"
    equation: ClassVar[str] = "d = Σ w_i g_i, w = √λ_min V Λ^(−½) Vᵀ (1/K)"
    traps: ClassVar[str] = (
        "λ_min is small where gradients are nearly dependent, and the update with it. LibMTL leaves out the 1/K."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tolerance", 0 < self.tolerance < 1, "must be in (0, 1)")

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        values, vectors = tf.linalg.eigh(gram.matrix)
        counts = values > self.tolerance * values[..., -1:]
        counts &= values > 0
        least = tf.reduce_min(tf.where(counts, values, float("inf")), -1, keepdims=True)
        ratio = tf.where(counts, tf.sqrt(least / tf.where(counts, values, 1)), 0)
        share = 1 / tf.cast(tf.shape(values)[-1], values.dtype)
        along = share * tf.reduce_sum(vectors, -2)  # Vᵀ (1/K)
        return tf.linalg.matvec(vectors, ratio * along)
