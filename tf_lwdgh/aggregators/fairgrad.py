# SPDX-License-Identifier: Apache-2.0
"""Fair resource allocation between the tasks (Ban & Ji 2024)."""

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
class FairGrad(GramAggregator):
    """d = Σ α_i g_i / K with G α = α^(−1/a), α > 0 (published: without the division by K).

    Attributes:
      a: how much fairness, above 0; 1 is Nash's solution, large values look at the worst task.
      scale: 'published', or 'mean': the update's length is that of the mean gradient.
    """

    a: float = 2.0
    scale: str = "published"

    reference: ClassVar[str] = "Ban, Ji: Fair Resource Allocation in Multi-Task Learning, ICML 2024"
    equation: ClassVar[str] = "d = (1/K) Σ α_i g_i, G α = α^(−1/a)"
    traps: ClassVar[str] = "Small gradients give large updates: d grows with their size to the power (1−a)/(1+a)."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("a", 0.1 <= self.a <= 20, "must be in [0.1, 20]")
        self.require("scale", self.scale in solvers.SCALES, f"must be one of {', '.join(solvers.SCALES)}")

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        alpha = solvers.power_equation(gram.matrix, 1 / self.a)
        if self.scale == "mean":
            return solvers.as_long_as_the_mean(gram.matrix, alpha)
        # α is homogeneous in the gradients' scale s, of degree −2a/(a+1).
        size = tf.where(gram.scale > 0, gram.scale, tf.ones_like(gram.scale)) ** (-2 * self.a / (self.a + 1))
        return alpha * size[:, None] / tf.cast(tf.shape(alpha)[-1], alpha.dtype)
