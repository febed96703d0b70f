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


@config.configurable
@dataclasses.dataclass(frozen=True)
class LWDGH(Aggregator):
    """Weights the tasks of each unit by softmax(-GCI / temperature).

    Attributes:
      unit: what is weighted together: 'variable', 'layer' or 'model'.
      temperature: τ > 0; 1 in the paper. Large values approach the mean.
      scale: 'absolute', the paper's; or 'relative': GCI is divided by the mean norm of the tasks'
        gradients of the unit, so that τ means the same in every layer and at every stage of training.
    """

    temperature: float = 1.0
    scale: str = "absolute"

    reference: ClassVar[str] = "Cross-Task Gradient Harmonization for Meta-Learning (LWDGH)"
    equation: ClassVar[str] = "w = softmax_k(−GCI_k/τ), GCI_k = ‖g_k‖(1 − cos(g_k, ḡ)); d = Σ_k w_k g_k"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4, with EE", "51.40 ± 1.76", "its Table 1"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4, with EE", "67.06 ± 0.97", "its Table 1"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4, without EE", "50.73 ± 1.63", "its Table 5"),
        Published("mini-ImageNet 5-way 1-shot, Resnet12, with EE", "59.13 ± 2.01", "its Table 3"),
    )
    traps: ClassVar[str] = (
        "GCI grows with a gradient's norm, so that tasks with small gradients, the easy ones, weigh "
        "most; and one τ means something else in a kernel (GCI of 1 to 4) than in a BatchNorm scale "
        "(0.1 to 0.2). scale = 'relative' takes the norms out."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = self.temperature > 0 and math.isfinite(self.temperature)
        self.require("temperature", positive, "must be finite and > 0")
        self.require("scale", self.scale in SCALES, f"must be one of {', '.join(SCALES)}")

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        weights = self.weights(self._scaled(tasks))
        return Aggregated(tasks.weighted(weights), tasks.by_unit(weights), {})

    def weights(self, gci: tf.Tensor) -> tf.Tensor:
        """The attention weights: [..., K] -> [..., K], summing to 1."""
        return tf.nn.softmax(-gci / self.temperature)

    def _scaled(self, tasks: TaskGradients) -> tf.Tensor:
        if self.scale == "absolute":
            return tasks.gci
        mine = [rows.norms for rows in tasks.unit_rows]
        norms = tasks.collective.gather(tf.stack(mine))
        return tf.math.divide_no_nan(tasks.gci, tf.reduce_mean(norms, -1, keepdims=True))
