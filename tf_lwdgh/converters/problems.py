"""What a converter does about a corrupt image or a missing file: stop, or skip and count."""

from __future__ import annotations

import threading

_SHOWN = 20


class Problems:
    """Stops at the first problem or, asked to, collects them all. Threads may share it."""

    def __init__(self, *, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self.found: list[str] = []
        self._lock = threading.Lock()

    def add(self, where: object, what: str, *, cause: BaseException | None = None) -> None:
        """Notes a problem: what is wrong, and where.

        Raises:
          ValueError: problems are not skipped.
        """
        if not self.skip_bad:
            raise ValueError(
                f"{where}: {what}. Mend it, or say --skip_bad to leave such things out."
            ) from cause
        line = f"{where}: {what}".encode("utf-8", "backslashreplace").decode()  # of any file name
        with self._lock:
            self.found.append(line)

    def summary(self) -> str:
        """How many there were, and the first of them."""
        if not self.found:
            return "nothing was skipped"
        found = sorted(self.found)
        more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        return f"skipped {len(found)}:\n" + "\n".join(f"  {line}" for line in found[:_SHOWN] + more)
