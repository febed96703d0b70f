# SPDX-License-Identifier: Apache-2.0
"""What an examination found: what is well, what to know, what is odd and what is wrong, and what mends it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_lwdgh import command_line

OK, NOTE, WARNING, FAULT = "ok", "note", "warning", "fault"


@dataclasses.dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
      kind: OK, NOTE, WARNING or FAULT.
      what: in words.
      mend: the command that mends it, or what to do; empty: nothing.
    """

    kind: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (f"\n  mend: {self.mend}" if self.mend else "")


class Report:
    """The lines of an examination.

    Args:
      about: what is examined, such as 'environment' or a folder.

    Attributes:
      lines: in the order in which they were found.
    """

    def __init__(self, about: str) -> None:
        self.about = about
        self.lines: list[Line] = []

    def ok(self, what: str) -> None:
        """Something is as it should be."""
        self.lines.append(Line(OK, what))

    def note(self, what: str, mend: str = "") -> None:
        """Something to know, which is neither good nor bad."""
        self.lines.append(Line(NOTE, what, mend))

    def warn(self, what: str, mend: str = "") -> None:
        """Something works, and not as well as it could."""
        self.lines.append(Line(WARNING, what, mend))

    def fault(self, what: str, mend: str = "") -> None:
        """Something does not work."""
        self.lines.append(Line(FAULT, what, mend))

    def refused(self, error: Exception, mend: str = "") -> None:
        """A fault in the words of the error that says what is wrong."""
        self.fault(command_line.without_call_trace(str(error)), mend)

    def count(self, kind: str) -> int:
        """How many lines are of a kind."""
        return sum(line.kind == kind for line in self.lines)

    @property
    def faulty(self) -> bool:
        """Whether something is wrong."""
        return self.count(FAULT) > 0

    def __str__(self) -> str:
        sums = ", ".join(counted(self.count(kind), kind) for kind in (FAULT, WARNING))
        return "\n".join([*map(str, self.lines), f"{self.about}: {sums}"])

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "examined": self.about,
            "faults": self.count(FAULT),
            "warnings": self.count(WARNING),
            "findings": [dataclasses.asdict(line) for line in self.lines],
        }


def counted(number: int, what: str) -> str:
    """Such as '1 fault' or '2,000 faults'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
