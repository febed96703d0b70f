# SPDX-License-Identifier: Apache-2.0
"""The plain mean of the tasks' gradients: MAML (Finn et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_lwdgh import config
from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Aggregated, Clock


@config.configurable
@dataclasses.dataclass(frozen=True)
class Mean(Aggregator):
    """ḡ = (1/K) Σ_k g_k.

    Attributes:
      unit: what conflict is measured on: 'variable', 'layer' or 'model'.
    """

    reference: ClassVar[str] = "Finn, Abbeel, Levine: Model-Agnostic Meta-Learning, ICML 2017"
    equation: ClassVar[str] = "d = (1/K) Σ_k g_k"

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        return Aggregated(tasks.mean, {}, {})
