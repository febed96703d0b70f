"""Layer-wise dynamic gradient harmonization with the explore-exploit schedule (the paper's eq. 4).

For each unit: w = softmax_k(-GCI_k / τ), g_u = Σ_k w_k g_k; an explore step takes w_k = 1/K instead.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators import conflict
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.schedules import Clock, ExploreExploit
from tf_lwdgh.aggregators.trees import Units
from tf_lwdgh.types import Aggregated, Tensors


@config.configurable
@dataclasses.dataclass(frozen=True)
class LWDGH:
    """Weights the tasks of each unit by softmax(-GCI / temperature).

    Attributes:
      unit: what is weighted together: 'variable', 'layer' or 'model'.
      temperature: τ > 0; 1 in the paper. Large values approach the mean.
      explore: the explore-exploit schedule; None or mode 'off' always exploits.
    """

    unit: str = "variable"
    temperature: float = 1.0
    explore: ExploreExploit | None = dataclasses.field(default_factory=ExploreExploit)

    def __post_init__(self) -> None:
        if self.unit not in trees.UNITS:
            raise ValueError(
                f"LWDGH.unit must be one of {', '.join(trees.UNITS)}. Received: {self.unit!r}."
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(
                f"LWDGH.temperature must be finite and > 0. Received: {self.temperature}."
            )

    def __call__(
        self, gradients: Tensors, *, units: Units, clock: Clock, collective: Collective
    ) -> Aggregated:
        mean = conflict.mean_gradients(gradients, collective)
        gci = conflict.measure(gradients, mean, units, collective)
        probability, explores = self._draw(clock)
        update: list[tf.Tensor] = [None] * len(gradients)
        metrics = conflict.conflict_metrics(gci)
        for unit, members in units.items():
            weights = self.weights(gci[unit], explores)
            metrics[f"weights/{unit}"] = weights
            mine = collective.mine(weights)
            for i in members:
                update[i] = trees.weighted_sum(mine, gradients[i])
        metrics["explore/probability"] = probability
        metrics["explore/flag"] = tf.cast(explores, tf.float32)
        return Aggregated(collective.sum(update), metrics)

    def weights(self, gci: tf.Tensor, explores: tf.Tensor) -> tf.Tensor:
        """The attention weights of one unit: [K] -> [K], summing to 1."""
        share = 1 / tf.cast(tf.size(gci), gci.dtype)
        attention = tf.nn.softmax(-gci / self.temperature)
        return tf.where(explores, share, attention)

    def _draw(self, clock: Clock) -> tuple[tf.Tensor, tf.Tensor]:
        schedule = self.explore or ExploreExploit(mode="off")
        probability = schedule.probability(clock.epoch, clock.epochs)
        return probability, schedule.draw(clock.step, clock.seed, probability)
