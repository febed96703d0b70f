# SPDX-License-Identifier: Apache-2.0
"""What an examination of a data set finds, as lines and as JSON values."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from tf_lwdgh.data.store.records import Fault


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or odd.

    Attributes:
      what: in words, with the names of file, class and record.
      file: its path, or None.
      class_id: or None.
      record: its number in the file, or None.
      byte: where the record begins in the file, or None.
    """

    what: str
    file: str | None = None
    class_id: int | None = None
    record: int | None = None
    byte: int | None = None


class Findings:
    """Collects findings: counts all, and keeps the first so many of each kind. Threads may share it.

    Faults are what training would stumble over, or learn from without a word. Warnings are what it
    need not mind.

    Args:
      limit: how many of each kind are kept.

    Attributes:
      faults: those kept.
      warnings: those kept.
      n_faults: of all.
      n_warnings: of all.
    """

    def __init__(self, limit: int) -> None:
        self.faults: list[Finding] = []
        self.warnings: list[Finding] = []
        self.n_faults = self.n_warnings = 0
        self._limit, self._lock = limit, threading.Lock()

    def fault(self, fault: Fault) -> None:
        """Takes a fault of a record file."""
        self.add(Finding(str(fault), fault.path, fault.class_id, fault.record, fault.byte))

    def add(self, finding: Finding) -> None:
        """Takes a fault."""
        with self._lock:
            self.n_faults += 1
            if len(self.faults) < self._limit:
                self.faults.append(finding)

    def warn(self, finding: Finding) -> None:
        """Takes a warning."""
        with self._lock:
            self.n_warnings += 1
            if len(self.warnings) < self._limit:
                self.warnings.append(finding)

    def lines(self) -> list[str]:
        """One a finding, by class and record, faults first; and how many more there were."""
        lines = []
        for kind, kept, count in (
            ("fault", self.faults, self.n_faults),
            ("warning", self.warnings, self.n_warnings),
        ):
            lines += [f"{kind}: {finding.what}" for finding in sorted(kept, key=_place)]
            if count > len(kept):
                lines.append(f"… and {count - len(kept):,} more {kind}s")
        return lines

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "faults": self.n_faults,
            "warnings": self.n_warnings,
            "first_faults": [dataclasses.asdict(f) for f in sorted(self.faults, key=_place)],
            "first_warnings": [dataclasses.asdict(f) for f in sorted(self.warnings, key=_place)],
        }


def _place(finding: Finding) -> tuple[int, int]:
    """Classes in order and their records in order; what is of no class comes first."""
    class_id, record = (-1 if n is None else n for n in (finding.class_id, finding.record))
    return class_id, record
