# SPDX-License-Identifier: Apache-2.0
"""One process a run folder: two would overwrite each other's checkpoints."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

_LOCK = ".lock"


@contextlib.contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a run folder, and makes it if need be; the lock falls with the process.

    Raises:
      ValueError: another process holds it.
    """
    os.makedirs(run_dir, exist_ok=True)
    with open(os.path.join(run_dir, _LOCK), "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                "--run_dir must not be in use by another process. "
                f"Received: {os.fspath(run_dir)!r}, where one is training now."
            ) from error
        yield


def is_locked(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a process holds a run folder now."""
    path = os.path.join(run_dir, _LOCK)
    if not os.path.exists(path):
        return False
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
