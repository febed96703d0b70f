# SPDX-License-Identifier: Apache-2.0
"""The tf.train.Example of a record: {image: bytes (PNG or JPEG), label: int64}, read and made."""

from __future__ import annotations

import tensorflow as tf
from google.protobuf.message import DecodeError


def find_image(example: bytes) -> bytes | None:
    """The feature 'image' in a serialised tf.train.Example; None, where it is none or has no such feature."""
    try:
        features = tf.train.Example.FromString(example).features.feature
    except DecodeError:
        return None
    images = features["image"].bytes_list.value if "image" in features else ()
    return images[0] if images else None


def find_labels(example: bytes) -> list[int]:
    """The feature 'label' of a tf.train.Example: as many numbers as it has, at most two of them."""
    features = tf.train.Example.FromString(example).features.feature
    return list(features["label"].int64_list.value[:2]) if "label" in features else []


def serialise(image: bytes, label: int) -> bytes:
    """One record: a tf.train.Example {image, label}, of the same bytes in every process."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)
