# SPDX-License-Identifier: Apache-2.0
"""How a run is watched and kept."""

from __future__ import annotations

import dataclasses

from tf_lwdgh import config


@config.configurable
@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How a run is watched and kept.

    Attributes:
      log_every: meta-steps of a window, whose means are logged.
      validate_every: meta-steps; None: at the end of every epoch. 0: never.
      checkpoint_every: meta-steps; None: at the end of every epoch.
      keep_checkpoints: how many of the newest stay, the best apart.
      val_tasks: tasks of a validation, always the same.
      val_inner_steps: steps of the inner loop in validation; None: as in training.
      val_seed: of the validation tasks.
      per_layer: whether TensorBoard also has lines and histograms of every unit (layer or variable). Pictures
        show the units, and metrics.jsonl has their lines, either way.
    """

    log_every: int = 10
    validate_every: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    val_tasks: int = 200
    val_inner_steps: int | None = 10
    val_seed: int = 0
    per_layer: bool = False

    def __post_init__(self) -> None:
        limits = {"log_every": 1, "validate_every": 0, "checkpoint_every": 1, "val_tasks": 2}
        for name, least in {**limits, "keep_checkpoints": 1, "val_inner_steps": 0}.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if value is not None and not whole:
                raise ValueError(
                    f"TrainerConfig.{name} must be an integer of at least {least}. "
                    f"Received: TrainerConfig.{name} = {value!r}."
                )
