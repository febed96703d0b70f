# SPDX-License-Identifier: Apache-2.0
"""What every aggregator is: the tasks' gradients in, one update out."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Aggregated, Clock, Published


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """Turns the tasks' outer gradients into one update. Subclasses are frozen dataclasses.

    A subclass in a file of this folder, or in a module that a gin file imports, is found by itself if it
    states its `reference`.

    Attributes:
      unit: what is treated together: 'variable', 'layer' or 'model'; conflict is measured on it too.
      reference: the paper.
      equation: the rule in one line.
      published: accuracies that were published for it.
      traps: what to know before using it.
    """

    unit: str = "variable"

    reference: ClassVar[str]
    equation: ClassVar[str] = ""
    published: ClassVar[tuple[Published, ...]] = ()
    traps: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.require("unit", self.unit in trees.UNITS, f"must be one of {', '.join(trees.UNITS)}")

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raises ValueError, naming the gin binding, where an argument breaks its rule."""
        if not holds:
            binding = f"{type(self).__name__}.{name}"
            raise ValueError(f"{binding} {rule}. Received: {binding} = {getattr(self, name)!r}.")

    def check(self, n_tasks: int) -> None:
        """Raises ValueError where the method has no meaning for meta-batches of `n_tasks` tasks."""

    def __call__(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        """Aggregates.

        Args:
          tasks: the gradients of this replica's tasks, with what is known of all tasks.
          clock: the meta-step, the run's length and seed.

        Returns:
          The update, the same on every replica, on the scale of the mean.
        """
        raise NotImplementedError
