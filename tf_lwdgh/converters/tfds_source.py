# SPDX-License-Identifier: Apache-2.0
"""A TensorFlow Datasets set by its name: as it is prepared on disk, or generated data in its place.

Nothing is downloaded unless that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_lwdgh.converters.tfds_features import Features
from tf_lwdgh.data import store

_GENERATED_SIZE = 84  # where a set's images have no size of their own


class Example(NamedTuple):
    """One image.

    Attributes:
      split: the set's own split that it is in.
      image: as the set stores it, PNG or JPEG.
      label: of the class.
      superclass: its label, or None.
    """

    split: str
    image: bytes
    label: int
    superclass: int | None


def prepared(dataset: str, data_dir: str | os.PathLike | None, *, download: bool) -> tfds.core.DatasetBuilder:
    """The builder of a set that TFDS has prepared.

    Args:
      dataset: name, name/config or name/config:version.
      data_dir: where TFDS keeps its sets; None: its own default.
      download: let TFDS fetch and prepare the set where it is not there.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: TFDS does not know it, or cannot prepare it.
    """
    try:
        return tfds.core.read_only_builder.builder_from_files(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        pass
    if not download:
        where = data_dir or "TFDS's default folder"
        raise FileNotFoundError(
            f"{dataset} is not prepared in {where} (--tfds_data_dir). Prepare it there with TFDS, let "
            "--download do so, or try things out with generated data: --stand_in=20."
        )
    builder = from_code(dataset, data_dir)
    try:
        builder.download_and_prepare()
    except AssertionError as error:  # files that must be fetched by hand
        raise ValueError(f"TFDS cannot prepare {dataset}: {error}") from error
    return builder


def from_code(dataset: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
    """The builder of a set by TFDS's code, prepared or not.

    Raises:
      ValueError: TFDS does not know it.
    """
    if dataset.split("/")[0] == "tf_lwdgh":
        from tf_lwdgh.converters import tfds_builder  # noqa: F401  registers it
    try:
        return tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"--dataset must be a set that TFDS knows. Received: {dataset!r}.") from error


def read(builder: tfds.core.DatasetBuilder, features: Features, splits: Sequence[str]) -> Iterator[Example]:
    """Every image of some splits, in the order in which they are stored.

    Args:
      builder: of a prepared set.
      features: of it, those to read; others are passed over.
      splits: TFDS's names, slices such as 'train[:10%]' among them.

    Raises:
      ValueError: a file is damaged.
    """
    keys = features.keys
    decoders = tfds.decode.PartialDecoding(
        {key: True for key in keys if key}, decoders={keys.image: tfds.decode.SkipDecoding()}
    )
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    for split in splits:
        try:
            dataset = builder.as_dataset(split=split, decoders=decoders, read_config=in_order)
            for row in dataset.as_numpy_iterator():
                superclass = int(row[keys.superclass]) if keys.superclass else None
                yield Example(split, row[keys.image], int(row[keys.label]), superclass)
        except tf.errors.OpError as error:
            raise ValueError(f"split {split!r} of {builder.info.full_name} cannot be read: {error.message}") from error


def generate(features: Features, n_images: int) -> Iterator[Example]:
    """Made-up images with a set's classes, shape and superclasses.

    A class is a pattern of its own, an image that pattern with noise; superclasses hold classes one
    after the other. The same on every machine.

    Args:
      features: of the set.
      n_images: a class.
    """
    height, width, channels = features.image_shape
    shape = (height or _GENERATED_SIZE, width or _GENERATED_SIZE, channels)
    n_classes, n_superclasses = len(features.classes), len(features.superclasses)
    for label in range(n_classes):
        random = np.random.default_rng(label)
        pattern = random.uniform(32, 224, shape)
        superclass = label * n_superclasses // n_classes if n_superclasses else None
        for _ in range(n_images):
            pixels = np.clip(pattern + random.normal(0, 40, shape), 0, 255).astype(np.uint8)
            yield Example("generated", store.encode_png(pixels), label, superclass)
