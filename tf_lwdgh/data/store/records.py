"""One file of TFRecords a class: random access to its encoded images, and a record's making."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_lwdgh.data.store.spec import DatasetSpec


def class_path(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> str:
    """The record file of a class."""
    return os.path.join(folder, spec.file_pattern.format(class_id))


def read_class(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> list[bytes]:
    """All encoded images of a class, in order."""
    path = class_path(folder, spec, class_id)
    content = pathlib.Path(path).read_bytes()
    return [content[a : a + n] for a, n in _image_extents(content, path)]


def index_class(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> np.ndarray:
    """Where each encoded image of a class lies in its file: int64 [n, 2], byte offset, length.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or cut short; the message names the file and the byte.
    """
    path = class_path(folder, spec, class_id)
    extents = list(_image_extents(pathlib.Path(path).read_bytes(), path))
    return np.array(extents, np.int64).reshape(-1, 2)


def _image_extents(content: bytes, path: str) -> Iterator[tuple[int, int]]:
    """Walks the TFRecord framing: length u64, its checksum u32, the record, its checksum u32."""
    at = 0
    while at < len(content):
        if at + 12 > len(content):
            raise ValueError(f"{path} is cut short in a record's header at byte {at}.")
        length, checksum = struct.unpack_from("<QI", content, at)
        if _masked_crc32c(content[at : at + 8]) != checksum:
            raise ValueError(f"{path} is damaged: wrong checksum in the header at byte {at}.")
        if at + 16 + length > len(content):
            raise ValueError(f"{path} is cut short: the record at byte {at} has {length} bytes.")
        found = _find_image(memoryview(content)[at + 12 : at + 12 + length])
        if found is None:
            raise ValueError(
                f"{path}: the record at byte {at} is no tf.train.Example with a feature 'image'."
            )
        yield at + 12 + found[0], found[1]
        at += 16 + length


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli's polynomial, reversed
        table.append(crc)
    return tuple(table)


_CRC32C = _crc32c_table()


def _masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
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
