# SPDX-License-Identifier: Apache-2.0
"""Where the records of a split lie, kept beside them, so that opening a large set reads no record twice.

The file .index.<split> holds, little-endian: _MAGIC, the number of classes (u32) and of records (u64); of each
class its file's size, modification time in ns, number of records and checksum (4 i64); the length of each
record's data (i64); and CRC-32C over all that (u32). A class whose file has another size or time is read
anew. A damaged index counts for nothing, and a folder that can't be written does without one.
"""

from __future__ import annotations

import logging
import os
import struct

import google_crc32c
import numpy as np

from tf_lwdgh import files
from tf_lwdgh.data.store.records import FRAME, ClassChecksum, RecordFile, class_path
from tf_lwdgh.data.store.spec import SPLITS, DatasetSpec

INDEX_FILES = tuple(f".index.{split}" for split in SPLITS)
_MAGIC = b"TFLWIDX1"
_HEAD = struct.Struct("<8sIQ")
_COLUMNS = ("size", "time", "count", "checksum")
_CLASS = np.dtype([(name, "<i8") for name in _COLUMNS])
_LENGTH = np.dtype("<i8")
_CRC_BYTES = 4
_LOG = logging.getLogger(__name__)


def index_split(folder: str | os.PathLike, spec: DatasetSpec, split: str) -> list[np.ndarray]:
    """Where each record of each class of a split lies: int64 [n, 2], byte offset and length of its data.

    Every record that was not indexed before is read and verified. Where the spec states the classes'
    checksums, they are compared whether or not that was needed.

    Raises:
      FileNotFoundError: a class has no file.
      ValueError: a file is damaged, cut short or another class's; the message names file, class, and
        where it is one record's, record and byte.
    """
    path = os.path.join(folder, f".index.{split}")
    classes = spec.classes(split)
    table = np.array([_stamp(class_path(folder, spec, c)) for c in classes], _CLASS)
    kept, kept_lengths = _read(path, table)
    lengths, changed = [], []
    for i, class_id in enumerate(classes):
        if kept[i]["size"] == table[i]["size"] and kept[i]["time"] == table[i]["time"]:
            table[i] = kept[i]
            lengths.append(kept_lengths[i])
            RecordFile(folder, spec, class_id).check_class(*(int(table[i][n]) for n in _COLUMNS[2:]))
        else:
            found, checksum = _walk(RecordFile(folder, spec, class_id))
            table[i]["count"], table[i]["checksum"] = len(found), checksum
            lengths.append(found)
            changed.append(class_id)
    if changed:
        _keep(path, table, lengths)
    return [_places(found) for found in lengths]


def _stamp(path: str) -> tuple[int, int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, 0, 0


def _walk(file: RecordFile) -> tuple[np.ndarray, int]:
    """The length of each record's data, and the checksum of the class."""
    lengths, checksum = [], ClassChecksum()
    with open(file.path, "rb") as opened:
        for record in file.walk(opened):
            file.image(record)
            lengths.append(len(record.data))
            checksum.add(record.stated)
    return np.array(lengths, _LENGTH), checksum.value


def _places(lengths: np.ndarray) -> np.ndarray:
    ends = np.cumsum(lengths + FRAME)
    return np.stack([ends - lengths - 4, lengths], axis=1).astype(np.int64)


def _read(path: str, table: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The kept table, and the lengths of each class; of no class where the index is not whole."""
    nothing = np.full(len(table), -1, _CLASS), []
    most = int(table["size"].sum()) // FRAME
    try:
        with open(path, "rb") as file:
            magic, n_classes, n_records = _HEAD.unpack(file.read(_HEAD.size))
            if magic != _MAGIC or n_classes != len(table) or n_records > most:
                return nothing
            size = n_classes * _CLASS.itemsize + n_records * _LENGTH.itemsize
            body = file.read(size + _CRC_BYTES + 1)
    except (FileNotFoundError, struct.error):
        return nothing
    head = _HEAD.pack(magic, n_classes, n_records)
    crc = google_crc32c.value(head + body[:size]).to_bytes(_CRC_BYTES, "little")
    if body[size:] != crc:
        _LOG.info("%s is damaged and is made anew", path)
        return nothing
    kept = np.frombuffer(body, _CLASS, n_classes)
    ends = np.cumsum(kept["count"])
    lengths = np.split(np.frombuffer(body[:size], _LENGTH, offset=kept.nbytes), ends[:-1])
    filled = [(part + FRAME).sum() for part in lengths]
    return (kept, lengths) if np.array_equal(filled, kept["size"]) else nothing


def _keep(path: str, table: np.ndarray, lengths: list[np.ndarray]) -> None:
    """Writes the index, where that can be done; several processes may."""
    head = _HEAD.pack(_MAGIC, len(table), sum(map(len, lengths)))
    content = head + table.tobytes() + b"".join(part.tobytes() for part in lengths)
    crc = google_crc32c.value(content).to_bytes(_CRC_BYTES, "little")
    try:
        files.write(path, content + crc, durable=False)
    except OSError as error:  # it only saves time
        _LOG.info("no index is kept: %s", error)
