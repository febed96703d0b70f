# SPDX-License-Identifier: Apache-2.0
"""Tensors as TensorFlow Serving's REST interface writes them: nested lists, and bytes as {"b64": …}."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.pictures import check
from tf_lwdgh.server.refusals import Refused
from tf_lwdgh.serving.signatures import Signature

_B64, _BYTES = "b64", "_bytes"
_MOST_AXES = 8


def to_arrays(signature: Signature, given: Any, limits: Limits) -> dict[str, np.ndarray]:
    """The arrays of a request's `inputs`, with every image in them checked.

    Args:
      signature: that is asked.
      given: a value a name; of a signature with one input also the value alone.
      limits: what images may come.

    Raises:
      Refused: names, types or values are wrong (400), or images too many or too large (413).
    """
    if not isinstance(given, dict) or set(given) == {_B64}:
        if len(signature.inputs) != 1:
            raise Refused(400, "inputs must be an object with a value a name.")
        given = dict.fromkeys(signature.inputs, given)
    if set(given) != set(signature.inputs):
        raise Refused(
            400,
            f"{signature.name}: inputs must be {', '.join(sorted(signature.inputs)) or 'none'}. "
            f"Received: {', '.join(sorted(given)) or 'none'}.",
        )
    arrays = {n: _array(n, given[n], spec) for n, spec in signature.inputs.items()}
    _count_images(arrays, signature, limits)
    check(_encoded(arrays), limits)
    return arrays


def _array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    if spec.dtype == tf.string:
        return _strings(name, value)
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:  # rows of several lengths
        raise Refused(400, f"{name} must be an array: its rows differ in length.") from error
    if array.size == 0:
        return array.astype(wanted)
    kinds = "iu" if wanted.kind in "iu" else "iuf"
    if array.dtype.kind not in kinds:
        told = "whole numbers" if wanted.kind in "iu" else "numbers"
        raise Refused(400, f"{name} must be {told} ({wanted.name}), in lists of one length. Received: {_kind(array)}.")
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    same = np.isfinite(converted) if wanted.kind == "f" else converted == array
    if not same.all():
        raise Refused(400, f"{name} must hold values of {wanted.name}. Received: {array[~same][0]}.")
    return converted


def _kind(array: np.ndarray) -> str:
    return {"f": "fractions", "b": "true or false", "U": "text", "O": "lists of other things"}.get(
        array.dtype.kind, array.dtype.name
    )


def _strings(name: str, value: Any) -> np.ndarray:
    """Bytes in nested lists as an array of objects."""
    shape: list[int] = []
    level = [value]
    while level and all(isinstance(item, list) for item in level):
        lengths = {len(item) for item in level}
        if len(lengths) > 1 or len(shape) >= _MOST_AXES:
            raise Refused(400, f"{name} must be an array: its rows differ in length.")
        shape.append(lengths.pop())
        level = [entry for item in level for entry in item]
    array = np.empty(len(level), object)
    array[:] = [_decoded(name, item) for item in level]
    return array.reshape(shape)


def _decoded(name: str, item: Any) -> bytes:
    if not isinstance(item, dict) or set(item) != {_B64} or not isinstance(item[_B64], str):
        raise Refused(400, f'{name} must hold encoded images as {{"b64": "…"}}.')
    try:
        return base64.b64decode(item[_B64], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"{name}: no base64: {error}.") from error


def _count_images(arrays: Mapping[str, np.ndarray], signature: Signature, limits: Limits) -> None:
    count = 0
    for name, array in arrays.items():
        if "_images" in name:
            axes = max((signature.inputs[name].shape.rank or 0) - 3, 1)
            if array.dtype == object:
                axes = array.ndim
            count += int(np.prod(array.shape[:axes]))
    if count > limits.max_images:
        raise Refused(413, f"a request must have at most {limits.max_images} images. Received: {count}.")


def _encoded(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    for name, array in arrays.items():
        if array.dtype == object:
            for place in np.ndindex(array.shape):
                yield f"{name}[{', '.join(map(str, place))}]", array[place]


def to_json(outputs: Mapping[str, np.ndarray]) -> Any:
    """What a signature gave, as JSON values; of one output the value alone.

    Raises:
      Refused: a value has no form in JSON (400).
    """
    found = {name: _listed(name, array) for name, array in outputs.items()}
    return next(iter(found.values())) if len(found) == 1 else found


def _listed(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        return _texts(array.tolist(), encode=name.endswith(_BYTES))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(400, f"the output {name} has NaN or infinite values, which JSON does not have.")
    return array.tolist()


def _texts(value: Any, *, encode: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, encode=encode) for item in value]
    return {_B64: base64.b64encode(value).decode()} if encode else value.decode("utf-8")
