# SPDX-License-Identifier: Apache-2.0
"""Direction-oriented multi-objective learning (Xiao et al. 2023): its direction, solved exactly."""

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
class SDMGrad(GramAggregator):
    """d = (g_w + λḡ)/(1+λ), w = argmin over the simplex of ‖g_w + λḡ‖²; on mean scale as published.

    The authors take 20 projected steps for w, on gradients of three independent minibatches; here w is
    solved to the end on the meta-batch at hand.

    Attributes:
      lam: λ >= 0, the pull towards the mean; 0 gives MGDA.
    """

    lam: float = 0.3

    reference: ClassVar[str] = "Xiao, Ban, Ji: Direction-oriented Multi-objective Learning, NeurIPS 2023"
    equation: ClassVar[str] = "d = (g_w + λḡ)/(1+λ), w = argmin_{w ∈ simplex} ‖g_w + λḡ‖²"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("lam", 0 <= self.lam < float("inf"), "must be at least 0, and finite")

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        share = 1 / tf.cast(tf.shape(gram.matrix)[-1], gram.matrix.dtype)
        w = solvers.simplex_minimum(gram.matrix, self.lam * share * tf.reduce_sum(gram.matrix, -1))
        return (w + self.lam * share) / (1 + self.lam)
