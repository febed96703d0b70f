# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole, under their name, or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives the errors of writing to an open file, which have none, the file's name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def write(path: str | os.PathLike[str], content: str | bytes, *, durable: bool = True) -> None:
    """Writes a file aside and renames it; folders are made if need be.

    Its mode is that of any new file of the user's. Where writing fails, what was there stays.

    Args:
      path: where.
      content: bytes, or text for UTF-8.
      durable: whether it is on the disk before it has its name.

    Raises:
      OSError: it can't be written; the message names the file.
    """
    path = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    aside = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with named(path), open(aside, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON of one value a line, as `write` does."""
    write(path, json.dumps(content, indent=1))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Makes sure, before long work, that a file can be written later.

    Raises:
      OSError: it can't; the message names the folder.
    """
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    os.makedirs(folder, exist_ok=True)
    aside = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    with open(aside, "xb"):
        pass
    os.unlink(aside)


def check_space(folder: str | os.PathLike[str], size: int, purpose: str) -> None:
    """Makes sure that a folder's disk has room.

    Args:
      folder: which must exist.
      size: bytes.
      purpose: what needs them, for the message.

    Raises:
      OSError: with errno ENOSPC; the message gives both numbers.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        what = f"{purpose} needs {size:,} bytes, and {free:,} are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {what}", os.fspath(folder))
