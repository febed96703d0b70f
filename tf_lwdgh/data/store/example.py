"""The tf.train.Example of a record: found in its bytes without a parse of the whole, and made."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf


def find_image(example: bytes) -> bytes | None:
    """The feature 'image' in a serialised tf.train.Example, if it is one that has it."""
    try:
        found = _walk_to_image(memoryview(example))
    except (IndexError, KeyError):  # bytes that are no protocol buffer message
        return None
    return example[found[0] : sum(found)] if found and sum(found) <= len(example) else None


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


def _fields(data: memoryview, start: int, size: int, wanted: set[int]) -> Iterator[tuple[int, int, int]]:
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
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise KeyError("a number of more than 64 bits")


def serialise(image: bytes, label: int) -> bytes:
    """One record: a tf.train.Example {image, label}."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
