"""The plain mean of the tasks' gradients: MAML (Finn et al. 2017), with its conflict measured."""

from __future__ import annotations

import dataclasses

from tf_lwdgh import config
from tf_lwdgh.aggregators import conflict
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.schedules import Clock
from tf_lwdgh.aggregators.trees import Units
from tf_lwdgh.types import Aggregated, Tensors


@config.configurable
@dataclasses.dataclass(frozen=True)
class Mean:
    """ḡ = (1/K) Σ_k g_k.

    Attributes:
      unit: what the GCI metrics are measured on: 'variable', 'layer' or 'model'.
    """

    unit: str = "variable"

    def __call__(
        self, gradients: Tensors, *, units: Units, clock: Clock, collective: Collective
    ) -> Aggregated:
        mean = conflict.mean_gradients(gradients, collective)
        gci = conflict.measure(gradients, mean, units, collective)
        return Aggregated(mean, conflict.conflict_metrics(gci))
