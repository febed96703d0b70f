# SPDX-License-Identifier: Apache-2.0
"""Multi-task learning as a bargaining game (Navon et al. 2022): Nash's solution between the tasks."""

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
class NashMTL(GramAggregator):
    """d = Σ α_i g_i with G α = 1/α, α > 0, whose length is always √K, then cut to `max_norm`.

    Solved to the end at every step, where the authors take some convex-concave steps from the last α.

    Attributes:
      max_norm: bound on the length of a unit's update; None: no bound. 1 in the authors' code.
      scale: 'published', or 'mean': the update's length is that of the mean gradient.
    """

    max_norm: float | None = 1.0
    scale: str = "published"

    reference: ClassVar[str] = "Navon et al.: Multi-Task Learning as a Bargaining Game, ICML 2022"
    equation: ClassVar[str] = "d = Σ α_i g_i, G α = 1/α"
    traps: ClassVar[str] = (
        "The published update has the same length whatever the gradients' size, so that it never comes to "
        "rest under SGD; bound per unit as here, it also loses the layers' relative sizes. Adam undoes both."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = self.max_norm is None or 0 < self.max_norm < float("inf")
        self.require("max_norm", positive, "must be above 0 and finite, or None")
        self.require("scale", self.scale in solvers.SCALES, f"must be one of {', '.join(solvers.SCALES)}")

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        alpha = solvers.power_equation(gram.matrix, 1.0)
        if self.scale == "mean":
            return solvers.as_long_as_the_mean(gram.matrix, alpha)
        if self.max_norm is not None:
            length = solvers.length(gram.matrix, alpha)
            alpha *= tf.minimum(tf.math.divide_no_nan(self.max_norm * tf.ones_like(length), length), 1)
        return tf.math.divide_no_nan(alpha, gram.scale[:, None])
