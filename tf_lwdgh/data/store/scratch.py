# SPDX-License-Identifier: Apache-2.0
"""Hidden working folders beside an output, removed also where the process that made one was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def scratch_folder(beside: str | os.PathLike, kind: str) -> Iterator[pathlib.Path]:
    """A new folder .<name>.<kind>-… beside <name>, removed in the end; those left over go first.

    A folder is left over when no process holds its lock any more. Where the file system knows no
    locks, left-over folders stay.

    Args:
      beside: the output, which need not be there; the folder it lies in is made.
      kind: what the folder is for.
    """
    beside = pathlib.Path(beside)
    beside.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{beside.name}.{kind}-"
    for folder in beside.parent.glob(f"{_escaped(prefix)}*"):
        if _is_left_over(folder):
            shutil.rmtree(folder, ignore_errors=True)
    path, lock = _locked(prefix, beside.parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _locked(prefix: str, parent: pathlib.Path) -> tuple[pathlib.Path, int]:
    """A new folder and its lock; made again where another process took it for left over."""
    while True:
        path = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_SH)
            if path.is_dir():
                return path, lock
            os.close(lock)


def _is_left_over(folder: pathlib.Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # held by its process, or no locks here
        return False
    finally:
        os.close(lock)
