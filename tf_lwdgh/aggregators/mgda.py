# SPDX-License-Identifier: Apache-2.0
"""The multiple-gradient descent algorithm (Désidéri 2012; Sener & Koltun 2018): the least-norm combination."""

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
class MGDA(GramAggregator):
    """d = Σ α_i g_i, α = argmin over the simplex of ‖Σ α_i g_i/n_i‖²; on mean scale as published.

    Attributes:
      normalisation: n_i, which α alone sees: 'none' (1), 'norm' (‖g_i‖), 'loss' (the task's query loss) or
        'both' (their product).
    """

    normalisation: str = "none"

    reference: ClassVar[str] = "Sener, Koltun: Multi-Task Learning as Multi-Objective Optimization, 2018"
    equation: ClassVar[str] = "d = Σ α_i g_i, α = argmin_{α ∈ simplex} ‖Σ α_i g_i‖²"
    traps: ClassVar[str] = (
        "The task of the smallest gradient decides: with 'none' training can stall. With 'loss' or 'both' "
        "a task whose loss is 0 has n_i = 0: it counts as no gradient and gets all the weight."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("none", "norm", "loss", "both")
        self.require("normalisation", self.normalisation in known, f"must be one of {', '.join(known)}")

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        matrix = gram.matrix
        size = tf.ones_like(matrix[..., 0])
        if self.normalisation in ("norm", "both"):
            size *= tf.sqrt(tf.maximum(tf.linalg.diag_part(matrix), 0))
        if self.normalisation in ("loss", "both"):
            size *= tf.abs(losses)
        inverse = tf.math.divide_no_nan(tf.ones_like(size), size)
        matrix = solvers.normalised(matrix * inverse[..., :, None] * inverse[..., None, :])
        return solvers.simplex_minimum(matrix, tf.zeros_like(size))
