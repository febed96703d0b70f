# SPDX-License-Identifier: Apache-2.0
"""Lists and tables that come with data sets: UTF-8 text, with or without a byte order mark."""

from __future__ import annotations

import csv
import io
import pathlib

_LARGEST = 1 << 28  # bytes


def read(path: pathlib.Path) -> str:
    """The text of a file.

    Raises:
      ValueError: it is no UTF-8 text, or larger than lists are; the message names the file.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(f"{path} must have at most {_LARGEST:,} bytes. Received: {size:,}.")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: it must be UTF-8. Received: {content[error.start : error.end]!r}."
        ) from error


def is_text(name: str) -> bool:
    """Whether a file's name is text: bytes that are not UTF-8 come as what no text holds."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def read_table(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a CSV file by its header's names.

    Raises:
      ValueError: as `read`, or a row has more or fewer cells than the header.
    """
    reader = csv.DictReader(io.StringIO(read(path), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is no row of a table: {error}.") from error
    for row in rows:
        if None in row or None in row.values():
            names = ", ".join(map(str, reader.fieldnames))
            raise ValueError(f"{path}: a row must have the cells {names}. Received: {row}.")
    return rows
