# SPDX-License-Identifier: Apache-2.0
"""Conflict-averse gradient descent (Liu et al. 2021): near the mean, the best for the worst task."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators import solvers
from tf_lwdgh.aggregators.gram_weights import GramAggregator
from tf_lwdgh.aggregators.task_gradients import Gram
from tf_lwdgh.types import Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class CAGrad(GramAggregator):
    """d = ḡ + c‖ḡ‖ g_w/‖g_w‖, w = argmin over the simplex of g_w·ḡ + c‖ḡ‖‖g_w‖; on mean scale as published.

    A task without a gradient has no part in w.

    Attributes:
      c: how far from the mean the update may be, as a share of its norm, at least 0; 0 gives the mean.
      rescale: 0: d as above; 1: divided by 1 + c² (the authors' default); 2: by 1 + c.
    """

    c: float = 0.4
    rescale: int = 1

    reference: ClassVar[str] = "Liu et al.: Conflict-Averse Gradient Descent, NeurIPS 2021"
    equation: ClassVar[str] = "d = ḡ + c‖ḡ‖ g_w/‖g_w‖, w = argmin_{w ∈ simplex} g_w·ḡ + c‖ḡ‖‖g_w‖"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, MAML, Convnet4", "50.03 ± 1.88", "the LWDGH paper, Table 1"),
        Published("mini-ImageNet 5-way 5-shot, MAML, Convnet4", "64.32 ± 1.05", "the LWDGH paper, Table 1"),
    )
    traps: ClassVar[str] = (
        "The authors' repository multiplies every method's mean by the number of tasks afterwards. With "
        "one task the update is (1 + c) g, divided by what `rescale` says."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("c", 0 <= self.c < float("inf"), "must be at least 0, and finite")
        self.require("rescale", self.rescale in (0, 1, 2), "must be 0, 1 or 2")

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        weights = solvers.best_in_ball(gram.matrix, self.c)
        return weights / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]
