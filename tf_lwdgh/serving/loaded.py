# SPDX-License-Identifier: Apache-2.0
"""An exported model in Python: inputs of any kind, and what is wrong with them in one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lwdgh.serving.functions import TASKS
from tf_lwdgh.serving.signatures import Signature, reason

Classifier = dict[str, np.ndarray]
NUMBER = "[1-9][0-9]*"  # the name of a version's folder


class Loaded:
    """An exported model: what `load` returns.

    Images are NumPy arrays or tensors, uint8 in 0..255 or floating in [0, 1], of shape [B, H, W, C],
    or B encoded images (JPEG, PNG, BMP, GIF) as bytes, of any size. Labels are whole numbers 0, 1,
    ..., way - 1 of any dtype, each with an example. Every method takes a batch of tasks too: all its
    inputs then have one more leading axis.

    Attributes:
      metadata: what was exported.
      signatures: every signature of an export by its name, with checks of its own.

    Args:
      model: has the functions of an export, such as a ServingModule that was not written.
      metadata: of it.
      signatures: of an export.
    """

    def __init__(self, model: Any, metadata: dict[str, Any], signatures: Mapping[str, Signature] | None = None) -> None:
        self._model, self.metadata, self.signatures = model, metadata, dict(signatures or {})

    def adapt(self, support_images: Any, support_labels: Any) -> Classifier:
        """Learns a support set.

        Args:
          support_images: [B, H, W, C], or B encoded images.
          support_labels: [B].

        Returns:
          The classifier, named arrays that can be kept and handed back.

        Raises:
          ValueError: something is wrong with the support set; the message says what.
        """
        images, suffix = _images("support_images", support_images)
        return self._call("adapt", suffix, images, _labels(support_labels))

    def predict(self, classifier: Mapping[str, Any], query_images: Any) -> dict[str, np.ndarray]:
        """Answers queries.

        Args:
          classifier: what `adapt` returned.
          query_images: [Q, H, W, C], or Q encoded images.

        Returns:
          'probabilities' [Q, N] and 'labels' [Q] int32.

        Raises:
          ValueError: something is wrong with the classifier or the queries.
        """
        images, suffix = _images("query_images", query_images)
        return self._call("predict", suffix, self._tensors(classifier), images)

    def adapt_and_predict(self, support_images: Any, support_labels: Any, query_images: Any) -> dict[str, np.ndarray]:
        """`adapt` and `predict` in one call, to the same bits.

        Raises:
          ValueError: something is wrong with the inputs, or the two sets of images are of two kinds.
        """
        support, suffix = _images("support_images", support_images)
        query, other = _images("query_images", query_images)
        if suffix != other:
            raise ValueError(
                "support_images and query_images must be of one kind and have as many axes. "
                f"Received: {_shown(support)} and {_shown(query)}."
            )
        return self._call("adapt_and_predict", suffix, support, _labels(support_labels), query)

    def has(self, function: str) -> bool:
        """Whether the export has a function, such as 'adapt_tasks_float'."""
        return callable(getattr(self._model, function, None))

    def _tensors(self, classifier: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The named tensors of a classifier, of the dtypes that they are to have."""
        known = self.metadata["classifier"]
        if not isinstance(classifier, Mapping) or set(classifier) != set(known):
            received = sorted(classifier) if isinstance(classifier, Mapping) else type(classifier)
            raise ValueError(f"classifier must have the tensors {', '.join(sorted(known))}. Received: {received}.")
        found = {}
        for name, about in known.items():
            array = _array(f"classifier: {name}", classifier[name])
            if array.dtype.name != about["dtype"]:
                raise ValueError(f"classifier: {name} must be {about['dtype']}. Received: {_shown(array)}.")
            found[name] = tf.constant(array)
        return found

    def _call(self, name: str, suffix: str, *inputs: Any) -> dict[str, np.ndarray]:
        try:
            found = getattr(self._model, name + suffix)(*inputs)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(reason(error.message)) from error
        return {name: np.asarray(tensor) for name, tensor in found.items()}


def load(path: str | os.PathLike[str]) -> Loaded:
    """An exported model, whose methods check their inputs and say what is wrong as ValueError.

    Raises:
      FileNotFoundError: there is no export at `path`.
    """
    notes = os.path.join(path, "assets", "metadata.json")
    if not os.path.exists(notes):
        raise FileNotFoundError(f"path must be a folder that tf_lwdgh.export wrote. Received: {os.fspath(path)!r}.")
    with open(notes, encoding="utf-8") as file:
        metadata = json.load(file)
    model = tf.saved_model.load(os.fspath(path))
    return Loaded(model, metadata, {n: Signature(n, f) for n, f in model.signatures.items()})


def versions(folder: str | os.PathLike[str]) -> list[int]:
    """The numbers of the versions that a model's folder holds, in their order; none where it is no folder."""
    there = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in there if re.fullmatch(NUMBER, name))


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        # NumPy's own bytes lose the zeros at their end, as a bitmap may have them.
        return np.asarray(value, object) if array.dtype.kind == "S" else array
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name} must be an array. Received: {error}.") from error


def _images(name: str, images: Any) -> tuple[tf.Tensor, str]:
    """Images as a tensor, and the end of the names of the functions that take them."""
    array = _array(name, images)
    if array.dtype.kind == "O" and _all_bytes(array):
        kind, axes = "_bytes", 1
    elif array.dtype == np.uint8:
        kind, axes = "", 4
    elif array.dtype.kind == "f":
        kind, axes = "_float", 4
        array = array.astype(np.float32)
    else:
        raise ValueError(
            f"{name} must be uint8 in 0..255, floating in [0, 1], or encoded images as bytes. "
            f"Received: {_shown(array)}."
        )
    return tf.constant(array), (TASKS if array.ndim == axes + 1 else "") + kind


def _all_bytes(array: np.ndarray) -> bool:
    return all(isinstance(item, bytes) for item in array.ravel())


def _labels(labels: Sequence[int] | Any) -> tf.Tensor:
    array = _array("support_labels", labels)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"support_labels must be whole numbers. Received: {_shown(array)}.")
    return tf.constant(array.astype(np.float32))


def _shown(array: Any) -> str:
    dtype = np.dtype(getattr(array.dtype, "as_numpy_dtype", array.dtype))
    return f"{dtype.name} of shape {list(array.shape)}"
