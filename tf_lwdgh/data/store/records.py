"""One file of TFRecords a class: random access to its encoded images, and a record's making."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np
import tensorflow as tf

from tf_lwdgh.data.store.spec import DatasetSpec


def class_path(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> str:
    """The record file of a class."""
    return os.path.join(folder, spec.file_pattern.format(class_id))


def read_class(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> list[bytes]:
    """All encoded images of a class, in order; every record's checksum is verified.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or cut short; the message names file, class, record and byte.
    """
    file = RecordFile(folder, spec, class_id)
    content = pathlib.Path(file.path).read_bytes()
    return [file.image(content[a : a + n], i) for i, (a, n) in enumerate(file.walk(content))]


def index_class(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> np.ndarray:
    """Where each record of a class lies in its file: int64 [n, 2], byte offset and length of its data.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or cut short; the message names file, class, record and byte.
    """
    file = RecordFile(folder, spec, class_id)
    content = pathlib.Path(file.path).read_bytes()
    extents = list(file.walk(content))
    for i, (a, n) in enumerate(extents):
        file.image(content[a : a + n], i)
    return np.array(extents, np.int64).reshape(-1, 2)


class RecordFile:
    """The record file of a class, and the words in which its faults are named."""

    def __init__(self, folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> None:
        self.path = class_path(folder, spec, class_id)
        self._name = f"{self.path} (class {class_id}, {spec.class_names[class_id]!r})"

    def walk(self, content: bytes) -> Iterator[tuple[int, int]]:
        """The extent of each record's data in the TFRecord framing, with both checksums verified.

        A record is: length u64, its checksum u32, the data, their checksum u32.
        """
        at = record = 0
        view = memoryview(content)
        while at < len(content):
            if at + 12 > len(content):
                raise ValueError(f"{self._name} is cut short in record {record}'s header at byte {at}.")
            length, checksum = struct.unpack_from("<QI", content, at)
            if _masked_crc32c(content[at : at + 8]) != checksum:
                raise ValueError(
                    f"{self._name} is damaged: wrong checksum in the header of record {record} at "
                    f"byte {at}."
                )
            if at + 16 + length > len(content):
                raise ValueError(
                    f"{self._name} is cut short: record {record} at byte {at} has {length} bytes."
                )
            data = bytes(view[at + 12 : at + 12 + length])
            self._verify(data, struct.unpack_from("<I", content, at + 12 + length)[0], record)
            yield at + 12, length
            at += 16 + length
            record += 1

    def read(self, descriptor: int, offset: int, length: int, record: int) -> bytes:
        """The encoded image of one record, read from the open file and verified.

        Args:
          descriptor: of the file.
          offset: of the record's data, from `index_class`.
          length: of the record's data.
          record: its number.

        Raises:
          ValueError: the file was cut or changed since it was indexed.
        """
        content = os.pread(descriptor, length + 4, offset)
        if len(content) != length + 4:
            raise ValueError(
                f"{self._name} was cut since it was indexed: record {record} has {length} bytes at "
                f"{offset}. Received: {len(content)}."
            )
        data = content[:length]
        self._verify(data, struct.unpack_from("<I", content, length)[0], record)
        return self.image(data, record)

    def image(self, data: bytes, record: int) -> bytes:
        """The encoded image in a record's data."""
        found = _find_image(memoryview(data))
        if found is None:
            raise ValueError(
                f"{self._name}: record {record} is no tf.train.Example with a feature 'image'."
            )
        return data[found[0] : sum(found)]

    def _verify(self, data: bytes, checksum: int, record: int) -> None:
        if _masked_crc32c(data) != checksum:
            raise ValueError(
                f"{self._name} is damaged: the data of record {record} do not match their checksum."
            )


def _masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _find_image(example: memoryview) -> tuple[int, int] | None:
    """Offset and length of the feature 'image' in a serialised tf.train.Example, if it is one."""
    try:
        found = _walk_to_image(example)
    except (IndexError, KeyError):  # bytes that are no protocol buffer message
        return None
    return found if found and sum(found) <= len(example) else None


def _walk_to_image(example: memoryview) -> tuple[int, int] | None:
    for _, start, size in _fields(example, 0, len(example), {1}):  # Example.features
        for _, a, n in _fields(example, start, size, {1}):  # Features.feature, a map entry
            parts = {number: (b, m) for number, b, m in _fields(example, a, n, {1, 2})}
            if 1 not in parts or 2 not in parts:
                continue
            key = bytes(example[parts[1][0] : sum(parts[1])])
            if key != b"image":
                continue
            for _, b, m in _fields(example, *parts[2], {1}):  # Feature.bytes_list
                for _, c, k in _fields(example, b, m, {1}):  # BytesList.value
                    return c, k
    return None


def _fields(data: memoryview, start: int, size: int, wanted: set[int]):
    """The length-delimited fields of a protocol buffer message: (number, offset, length)."""
    at, stop = start, start + size
    while at < stop:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            if key >> 3 in wanted:
                yield key >> 3, at, length
            at += length
        else:
            at += {1: 8, 5: 4}[kind]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def serialise(image: bytes, label: int) -> bytes:
    """One record: a tf.train.Example {image, label}."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
