# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard shows of a run's metrics, and under which tags; metrics.jsonl has all, by their own names.

Loss and accuracies stand in a section of their own, whose name sorts first. The lines of single units (layers
or variables) are left out unless they are asked for, and what cannot change in the run is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

FIRST = "0_summary"
LOW, HIGH = "interval95/val/accuracy_low", "interval95/val/accuracy_high"
_AT_A_GLANCE = ("train/", "val/", "test/")
_BY_UNIT = (
    "attention", "attention_max", "gci", "conflict_rate", "strong_conflict_rate", "update_cosine",
    "gradient_norm",
)  # fmt: skip
_INTERVAL = "val/interval95"  # shown as its two ends
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Tags:
    """Which metrics are shown, and how they are called.

    Attributes:
      per_layer: whether those of single units are.
      constant: the beginnings of the names of those that cannot change.
    """

    per_layer: bool = False
    constant: tuple[str, ...] = ()

    def of(self, name: str) -> str | None:
        """The tag of a metric; None where it is not shown."""
        group, _, unit = name.partition("/")
        if name == _INTERVAL or name.startswith(self.constant):
            return None
        if group in _BY_UNIT and unit != "total" and not self.per_layer:
            return None
        return f"{FIRST}/{name}" if name.startswith(_AT_A_GLANCE) else name

    def shown(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """What is shown of metrics, by tag; of a validation also both ends of its interval."""
        found = {tag: value for name, value in values.items() if (tag := self.of(name)) is not None}
        if _INTERVAL in values:
            mean, half = cast(Any, values["val/accuracy"]), cast(Any, values[_INTERVAL])
            found |= {LOW: mean - half, HIGH: mean + half}
        return found

    def of_histograms(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Histograms by tag, of all units or none; a tag can't be a scalar's too."""
        shown = {} if not self.per_layer else self.shown(values)
        return {tag.replace("gci/", "gci_histogram/", 1): value for tag, value in shown.items()}
