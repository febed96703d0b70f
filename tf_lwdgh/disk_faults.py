# SPDX-License-Identifier: Apache-2.0
"""A full, read-only or failing disk: told from other errors, whoever wrote, and said in one line."""

from __future__ import annotations

import errno
import os
import re
import shutil
from typing import NamedTuple

_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_BY_TEXT = {os.strerror(number): number for number in _FAULTS}
# TensorFlow's errors are no OSErrors, and end with "<path>; <text of the errno>".
_IN_TEXT = re.compile(r"(?P<path>/[^;\n]*)?[;:]\s*(?P<text>" + "|".join(map(re.escape, _BY_TEXT)) + ")")

_SAID = re.compile(r"cannot write (?:'(?P<path>[^\n]*?)'|a file): (?P<text>[^\n]*?) \(errno (?P<number>\d+)\)")


class Fault(NamedTuple):
    """What could not be written.

    Attributes:
      number: the errno.
      path: of the file; '' where nothing says it.
      text: the system's, or more.
    """

    number: int
    path: str
    text: str

    def __str__(self) -> str:
        """Such as "cannot write '/data/x': No space left on device (errno 28); 0 bytes are free"."""
        free = _free(self.path)
        room = f"; {free:,} bytes are free" if free is not None and "free" not in self.text else ""
        where = repr(self.path) if self.path else "a file"
        return f"cannot write {where}: {self.text} (errno {self.number}){room}"


def find(error: BaseException) -> Fault | None:
    """The disk's fault behind an error or its causes; None where there is none."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        fault = _of(current)
        if fault is not None:
            return fault
        current = current.__cause__ or current.__context__
    return None


def said(words: str, path: str) -> OSError:
    """The fault that another process of ours told in its last words, as an error again.

    Args:
      words: which may be cut or empty: they may have gone to the same disk.
      path: where the process wrote, if the words do not say it.
    """
    match = _SAID.search(words)
    if match is None:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    return OSError(int(match["number"]), match["text"], match["path"] or path)


def _of(error: BaseException) -> Fault | None:
    if isinstance(error, OSError):
        if error.errno not in _FAULTS:
            return None
        return Fault(error.errno, os.fsdecode(error.filename or ""), error.strerror)
    if type(error).__module__.startswith("tensorflow."):
        match = _IN_TEXT.search(str(error))
        if match is None:
            return None
        return Fault(_BY_TEXT[match["text"]], match["path"] or "", match["text"])
    return None


def _free(path: str) -> int | None:
    """The free bytes of the disk that a path is on, or will be."""
    folder = os.path.dirname(os.path.abspath(path)) if path else ""
    while folder and not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free if os.path.isdir(folder) else None
