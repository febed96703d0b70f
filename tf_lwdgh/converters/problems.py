# SPDX-License-Identifier: Apache-2.0
"""What a converter does about a corrupt image or a missing file: stop, or skip and count."""

from __future__ import annotations

import collections
import re
import threading

_SHOWN = 20


class Problems:
    """Stops at the first problem or, asked to, collects them all. Threads may share it.

    Attributes:
      found: the problems.
      left_out: how many there are of what is no problem, and yet was not converted: '.txt file'.
    """

    def __init__(self, *, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self.found: list[str] = []
        self.left_out: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def add(self, where: object, what: str, *, cause: BaseException | None = None) -> None:
        """Notes a problem: what is wrong, and where.

        Raises:
          ValueError: problems are not skipped.
        """
        if not self.skip_bad:
            raise ValueError(f"{where}: {what}. Mend it, or say --skip_bad to leave such things out.") from cause
        line = f"{where}: {what}".encode("utf-8", "backslashreplace").decode()  # of any file name
        with self._lock:
            self.found.append(line)

    def summary(self) -> str:
        """What was left out, and how many problems there were, with the first of them."""
        counts = self._counts()
        parts = [f"left out {', '.join(counts)}"] if counts else []
        if self.found:
            parts.append(self._skipped())
        return "; ".join(parts) or "nothing was skipped"

    def lines(self) -> list[str]:
        """All of it, a line each."""
        return sorted(self.found) + self._counts()

    def _counts(self) -> list[str]:
        return [f"{count:,} {_of_number(what, count)}" for what, count in sorted(self.left_out.items())]

    def _skipped(self) -> str:
        found = sorted(self.found)
        more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        return f"skipped {len(found)}:\n" + "\n".join(f"  {line}" for line in found[:_SHOWN] + more)


def _of_number(what: str, count: int) -> str:
    """'file that is empty', or 'files that are empty'."""
    if count == 1:
        return what
    return re.sub(r"\b(file|folder|image)\b", r"\1s", what, count=1).replace(" is ", " are ")
