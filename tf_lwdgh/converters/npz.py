# SPDX-License-Identifier: Apache-2.0
"""An array in an .npz, mapped into memory and not read, however large it is."""

from __future__ import annotations

import math
import os
import pathlib
import shutil
import struct
import zipfile
from typing import BinaryIO

import numpy as np

from tf_lwdgh.converters import archives, limits

_LOCAL = 30  # bytes of a member's header in a zip, before its name and extra field
_BLOCK = 1 << 20
_LONGEST = 1 << 16  # bytes of an array's header


def member(path: str | os.PathLike, key: str, spare: BinaryIO, *, beside: str | os.PathLike) -> np.ndarray:
    """One array of an .npz; np.load would read all of it, whatever its mmap_mode.

    Args:
      path: of the .npz.
      key: the array's name.
      spare: an empty file, into which a compressed array is unpacked.
      beside: the folder that `spare` is in.

    Raises:
      ValueError: the file is damaged, has no such array or one of Python objects, or unpacks to more
        than is allowed.
      OSError: there is no room for it.
    """
    path = pathlib.Path(path)
    with archives.damage_named(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if f"{key}.npy" not in names:
            known = ", ".join(n.removesuffix(".npy") for n in names)
            raise ValueError(f"{path} has no array {key!r}. Received the arrays: {known}.")
        info = archive.getinfo(f"{key}.npy")
        if info.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as file:
                return _map(path, key, file, _start(file, info), info.file_size)
        limits.Allowance(path, beside).take(info.file_size)
        with archive.open(info) as content:
            shutil.copyfileobj(content, spare, _BLOCK)
    spare.flush()
    return _map(path, key, spare, 0, info.file_size)


def _start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a stored member's content begins: behind its own header, whose lengths may differ."""
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(_LOCAL)[26:])
    return info.header_offset + _LOCAL + name + extra


def _map(path: pathlib.Path, key: str, file: BinaryIO, start: int, size: int) -> np.ndarray:
    file.seek(start)
    try:
        version = np.lib.format.read_magic(file)
        long = version != (1, 0)
        length = int.from_bytes(file.read(4 if long else 2), "little")
        if length > _LONGEST:
            raise ValueError(f"a header of {length:,} bytes")
        file.seek(-4 if long else -2, os.SEEK_CUR)
        read = np.lib.format.read_array_header_2_0 if long else np.lib.format.read_array_header_1_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("an array of Python objects is refused")
        if math.prod(shape) * dtype.itemsize > start + size - file.tell():
            raise ValueError(f"{dtype} {list(shape)} is more than its {size:,} bytes")
        order = "F" if fortran else "C"
        return np.memmap(file, dtype, "r", file.tell(), shape, order)
    except (ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path}: the array {key!r} cannot be read ({error}).") from error
