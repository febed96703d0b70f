# SPDX-License-Identifier: Apache-2.0
"""Layer-wise dynamic gradient harmonization (the paper's eq. 4).

For each unit: w = softmax_k(-GCI_k / τ), g_u = Σ_k w_k g_k.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Aggregated, Clock, Published

SCALES = ("absolute", "relative")
INDICES = ("gci", "printed", "cosine", "norm")
_ON_THE_NORMS_SCALE = ("gci", "norm")  # which alone 'relative' has a meaning for


@config.configurable
@dataclasses.dataclass(frozen=True)
class LWDGH(Aggregator):
    """Weights the tasks of each unit by softmax(-GCI / temperature).

    Attributes:
      unit: what is weighted together: 'variable', 'layer' or 'model'.
      temperature: τ > 0; 1 in the paper. Large values approach the mean.
      scale: 'absolute', the paper's; or 'relative': GCI is divided by the mean norm of the tasks'
        gradients of the unit, so that τ means the same in every layer and at every stage of training.
      index: what is weighed: 'gci', the paper's; or, for studies, a part of it: 'cosine', 1 − cos(g_k, ḡ)
        alone; 'norm', ‖g_k‖ alone; or 'printed', (‖g_k‖ − g_k·ḡ)/‖ḡ‖, as the paper prints its second
        form. 'relative' is for 'gci' and 'norm'.
      opposite: softmax(+index/τ): a control, which prefers the tasks in conflict.
    """

    temperature: float = 1.0
    scale: str = "absolute"
    index: str = "gci"
    opposite: bool = False

    reference: ClassVar[str] = "Cross-Task Gradient Harmonization for Meta-Learning (LWDGH)"
    equation: ClassVar[str] = "w = softmax_k(−GCI_k/τ), GCI_k = ‖g_k‖(1 − cos(g_k, ḡ)); d = Σ_k w_k g_k"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4, with EE", "51.40 ± 1.76", "its Table 1"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4, with EE", "67.06 ± 0.97", "its Table 1"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4, without EE", "50.73 ± 1.63", "its Table 5"),
        Published("mini-ImageNet 5-way 1-shot, Resnet12, with EE", "59.13 ± 2.01", "its Table 3"),
    )
    traps: ClassVar[str] = (
        "One τ means something else in a kernel (GCI of 1 to 4) than in a BatchNorm scale (0.1 to 0.2), since "
        "GCI grows with the norm; scale = 'relative' takes the norms out. At τ = 1 the weights are nearly equal; "
        "sharper ones cost (docs/results.md). Within one data set they follow the cosine with the mean, in a "
        "mixture of sets small norms."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = self.temperature > 0 and math.isfinite(self.temperature)
        self.require("temperature", positive, "must be finite and > 0")
        self.require("scale", self.scale in SCALES, f"must be one of {', '.join(SCALES)}")
        self.require("index", self.index in INDICES, f"must be one of {', '.join(INDICES)}")
        scaled = self.scale == "absolute" or self.index in _ON_THE_NORMS_SCALE
        self.require("scale", scaled, f"must be 'absolute' with LWDGH.index = {self.index!r}")

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        weights = self.weights(self._indices(tasks))
        return Aggregated(tasks.weighted(weights), tasks.by_unit(weights), {})

    def weights(self, indices: tf.Tensor) -> tf.Tensor:
        """The attention weights: [..., K] -> [..., K], summing to 1."""
        return tf.nn.softmax((indices if self.opposite else -indices) / self.temperature)

    def _indices(self, tasks: TaskGradients) -> tf.Tensor:
        """[U, K]; where a gradient or the mean is 0 the cosine counts as 0."""
        if self.index == "gci" and self.scale == "absolute":
            return tasks.gci
        values = self._parts(tasks)
        if self.scale == "absolute":
            return values
        return tf.math.divide_no_nan(values, tf.reduce_mean(tasks.norms, -1, keepdims=True))

    def _parts(self, tasks: TaskGradients) -> tf.Tensor:
        """The index of norms and GCI, each [U, K]."""
        norms = tasks.norms
        if self.index in _ON_THE_NORMS_SCALE:
            return tasks.gci if self.index == "gci" else norms
        zero = tf.equal(norms, 0)
        distances = tf.where(zero, tf.ones_like(norms), tf.math.divide_no_nan(tasks.gci, norms))
        if self.index == "cosine":
            return distances
        means = tf.stack([mean.norms for mean in tasks.unit_means])[:, None]
        return tf.math.divide_no_nan(norms, means) - norms * (1 - distances)
