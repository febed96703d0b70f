# SPDX-License-Identifier: Apache-2.0
"""Encoded images sorted by class on disk, however many there are: a file a class, memory bounded."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterator

_LENGTH = struct.Struct("<Q")


class ClassSpool:
    """Takes images class by class in any order, and gives those of a class in the order they came."""

    def __init__(self, folder: str | os.PathLike, *, buffer_bytes: int = 64 << 20) -> None:
        """An empty spool.

        Args:
          folder: that it may write to; removing it is the caller's.
          buffer_bytes: what is held in memory, of all classes together, before it is written.
        """
        self.counts: dict[int, int] = {}
        self._folder = pathlib.Path(folder)
        self._buffer_bytes = buffer_bytes
        self._held: dict[int, bytearray] = {}
        self._n_held = 0

    def add(self, class_id: int, image: bytes) -> None:
        """Takes one encoded image."""
        self._held.setdefault(class_id, bytearray()).extend(_LENGTH.pack(len(image)) + image)
        self.counts[class_id] = self.counts.get(class_id, 0) + 1
        self._n_held += len(image)
        if self._n_held >= self._buffer_bytes:
            self.flush()

    def flush(self) -> None:
        """Writes what is held; needed once before anything is read."""
        for class_id, content in self._held.items():
            with open(self._path(class_id), "ab") as file:
                file.write(content)
        self._held, self._n_held = {}, 0

    def images(self, class_id: int) -> Iterator[bytes]:
        """The images of a class, in the order in which they came."""
        with open(self._path(class_id), "rb") as file:
            while head := file.read(_LENGTH.size):
                yield file.read(_LENGTH.unpack(head)[0])

    def _path(self, class_id: int) -> pathlib.Path:
        return self._folder / str(class_id)
