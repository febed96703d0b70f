"""What every aggregator is: the tasks' gradients in, one update and its metrics out."""

from __future__ import annotations

from typing import Protocol

from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.schedules import Clock
from tf_lwdgh.aggregators.trees import Units
from tf_lwdgh.types import Aggregated, Tensors


class Aggregator(Protocol):
    """Turns the tasks' outer gradients into one update.

    Attributes:
      unit: 'variable', 'layer' or 'model': what is treated together.
    """

    unit: str

    def __call__(
        self, gradients: Tensors, *, units: Units, clock: Clock, collective: Collective
    ) -> Aggregated:
        """Aggregates.

        Args:
          gradients: one tensor [T, *shape] a variable, T the tasks of this replica.
          units: the partition of the variables that belongs to `unit`.
          clock: the meta-step, the run's length and seed.
          collective: sums over replicas; the result ranges over the tasks of all of them.

        Returns:
          The update, the same on every replica, on the scale of the mean; and metrics.
        """
