# SPDX-License-Identifier: Apache-2.0
"""How much a source may ask for: the pixels of an image, and what an archive unpacks to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

from PIL import Image

from tf_lwdgh import command_line, files

TIMES, LEAST = 100, 1 << 30  # an archive may unpack to so many times its size, and to so many bytes
_BLOCK = 4096  # bytes that the smallest file takes on a disk


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a conversion allows its source.

    Attributes:
      max_pixels: height × width of an image; by default where Pillow begins to warn.
      max_unpacked: bytes that an archive may unpack to, a member counting for 4,096 at least; None:
        100 times the archive's size, and at least 1 GiB.
    """

    max_pixels: int = command_line.MOST_PIXELS
    max_unpacked: int | None = None

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"--max_pixels must be at least 1. Received: {self.max_pixels}.")
        if self.max_unpacked is not None and self.max_unpacked < 1:
            raise ValueError(f"--max_unpacked must be above 0. Received: {self.max_unpacked} bytes.")


_in_force = Limits()


@contextlib.contextmanager
def use(limits: Limits) -> Iterator[None]:
    """Converts under these limits, in all threads; Pillow's own gives way to them meanwhile."""
    global _in_force
    before, pillow = _in_force, Image.MAX_IMAGE_PIXELS
    _in_force, Image.MAX_IMAGE_PIXELS = limits, None
    try:
        yield
    finally:
        _in_force, Image.MAX_IMAGE_PIXELS = before, pillow


def check_pixels(width: int, height: int) -> None:
    """Raises ValueError where an image has more pixels than is allowed."""
    if width * height > _in_force.max_pixels:
        raise ValueError(
            f"an image must have at most {_in_force.max_pixels:,} pixels. Received: {width:,} × "
            f"{height:,}; --max_pixels={width * height} allows it"
        )


class TooMuch(ValueError):
    """An archive that unpacks to more than is allowed."""


class Allowance:
    """What may still be unpacked of one archive into one folder.

    Args:
      archive: for its size, and the messages.
      folder: where it is unpacked.
    """

    def __init__(self, archive: pathlib.Path, folder: str | os.PathLike) -> None:
        self._archive, self._folder = archive, folder
        self._taken = 0
        self._bound, self._rule = _in_force.max_unpacked, "as --max_unpacked says"
        if self._bound is None:
            self._bound = max(LEAST, TIMES * archive.stat().st_size)
            self._rule = f"{TIMES} times its size, and at least 1 GiB"

    def take(self, *sizes: int) -> None:
        """Counts members that are about to be unpacked.

        Raises:
          TooMuch: that is more than is allowed in all.
          OSError: there is not so much room on the disk.
        """
        more = sum(max(size, _BLOCK) for size in sizes)
        self._taken += more
        if self._taken > self._bound:
            raise TooMuch(
                f"{self._archive} must not unpack to more than {self._bound:,} bytes ({self._rule}). "
                f"Received: {self._taken:,} bytes or more; --max_unpacked=GB allows them."
            )
        files.check_space(self._folder, more, f"unpacking {self._archive}")
