# SPDX-License-Identifier: Apache-2.0
"""Training tasks of another shape than validation and test tasks."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.data.episodes import EpisodeConfig


@config.configurable
@dataclasses.dataclass(frozen=True)
class TrainingTasks:
    """What of a training task is not as EpisodeConfig has it for validation and test tasks; None: all is.

    Prototypical networks, for one, are trained on more ways than they are tested with.

    Attributes:
      n_way: classes in a task, for learners that are trained on tasks of any number of ways.
      k_shot: support images a class.
      n_query: query images a class.

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    n_way: int | None = None
    k_shot: int | None = None
    n_query: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            least = 2 if name == "n_way" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                self.refuse(f"an integer of at least {least}, or None", name)

    @property
    def given(self) -> dict[str, Any]:
        """What is not None, by its name."""
        return {n: v for n, v in dataclasses.asdict(self).items() if v is not None}

    def of(self, episode: EpisodeConfig) -> EpisodeConfig:
        """The shape of training tasks where that of the others is `episode`."""
        return dataclasses.replace(episode, **self.given)

    def refuse(self, rule: str, *names: str) -> None:
        """Raises ValueError where one of these (by default any) is given."""
        for name, value in self.given.items():
            if name in (names or self.given):
                binding = f"{type(self).__name__}.{name}"
                raise ValueError(f"{binding} must be {rule}. Received: {binding} = {value!r}.")
