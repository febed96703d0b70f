# SPDX-License-Identifier: Apache-2.0
"""Which features of a TensorFlow Datasets set hold an image's pixels, its class and its superclass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds


class Keys(NamedTuple):
    """The names of the features; None: what the set says itself, and no superclass.

    Attributes:
      image: of the image.
      label: of the class.
      superclass: of the superclass.
    """

    image: str | None = None
    label: str | None = None
    superclass: str | None = None


class Features(NamedTuple):
    """The features as they are in one set.

    Attributes:
      keys: their names, image and label at least.
      classes: the names of the classes by label.
      superclasses: the names of the superclasses by label, or nothing.
      image_shape: height, width and channels; height and width may be None.
    """

    keys: Keys
    classes: tuple[str, ...]
    superclasses: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int]


def find(info: tfds.core.DatasetInfo, keys: Keys) -> Features:
    """The features that a conversion reads.

    Raises:
      ValueError: they are not named where the set's supervised keys do not do it, or they are not
        there, or they are no image of 1 or 3 channels and no class labels.
    """
    supervised = info.supervised_keys
    if isinstance(supervised, tuple) and len(supervised) == 2:
        said = [key if isinstance(key, str) else None for key in supervised]
        keys = keys._replace(image=keys.image or said[0], label=keys.label or said[1])
    for flag, key in (("image", keys.image), ("label", keys.label)):
        if key is None:
            raise ValueError(
                f"{info.full_name} does not say by its supervised keys which feature is the {flag}: "
                f"name it with --{flag}_key. Its features: {_names(info)}."
            )
    shape = _image_shape(info, keys.image)
    superclasses = _labels(info, "superclass", keys.superclass) if keys.superclass else ()
    return Features(keys, _labels(info, "label_key", keys.label), superclasses, shape)


def _image_shape(info: tfds.core.DatasetInfo, key: str) -> tuple[int | None, int | None, int]:
    feature = _feature(info, "image_key", key)
    kinds = tfds.features
    is_image = isinstance(feature, kinds.Image) and not isinstance(feature, kinds.LabeledImage)
    fits = is_image and np.dtype(feature.np_dtype) == np.uint8 and len(feature.shape) == 3
    if not fits or feature.shape[-1] not in (1, 3):
        raise ValueError(
            f"--image_key must name an Image of uint8 with 1 or 3 channels in {info.full_name}. "
            f"Received: {key!r}, {_short(feature)}."
        )
    return feature.shape


def _labels(info: tfds.core.DatasetInfo, flag: str, key: str) -> tuple[str, ...]:
    feature = _feature(info, flag, key)
    if not isinstance(feature, tfds.features.ClassLabel) or not feature.num_classes:
        raise ValueError(
            f"--{flag} must name a ClassLabel whose classes are known in {info.full_name}. "
            f"Received: {key!r}, {_short(feature)}."
        )
    return tuple(feature.names)


def _feature(info: tfds.core.DatasetInfo, flag: str, key: str) -> Any:
    if key not in info.features:
        raise ValueError(f"--{flag} must name a feature of {info.full_name}: {_names(info)}. Received: {key!r}.")
    return info.features[key]


def _names(info: tfds.core.DatasetInfo) -> str:
    return ", ".join(sorted(info.features))


def _short(feature: Any) -> str:
    text = " ".join(repr(feature).split())
    return text if len(text) <= 100 else text[:97] + "..."
