# SPDX-License-Identifier: Apache-2.0
"""The signatures of an exported model: what each takes and gives, and what is wrong with inputs in a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_RULE = re.compile(r"assertion failed: \[(.*?\.)\]\s", re.DOTALL)


class Signature:
    """A signature of a SavedModel: a concrete function, which no refused input locks.

    Attributes:
      name: the signature's.
      inputs: what it takes, a tf.TensorSpec a name.
      outputs: what it gives, a tf.TensorSpec a name.

    Args:
      name: the signature's.
      function: of a loaded SavedModel's `signatures`.
    """

    def __init__(self, name: str, function: tf.types.experimental.ConcreteFunction) -> None:
        self.name, self._function = name, function
        self.inputs: dict[str, tf.TensorSpec] = dict(function.structured_input_signature[1])
        self.outputs: dict[str, tf.TensorSpec] = dict(function.structured_outputs)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the model gives.

        Args:
          inputs: an array a name, of the dtype and shape of the signature.

        Raises:
          ValueError: names, a dtype, a shape or values are wrong; the message says what.
        """
        if set(inputs) != set(self.inputs):
            raise ValueError(
                f"{self.name}: inputs must be {', '.join(sorted(self.inputs)) or 'none'}. "
                f"Received: {', '.join(sorted(inputs)) or 'none'}."
            )
        tensors = {n: _tensor(n, inputs[n], spec) for n, spec in self.inputs.items()}
        try:
            found = self._function(**tensors)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(reason(error.message)) from error
        return {name: np.asarray(tensor) for name, tensor in found.items()}


def _tensor(name: str, value: Any, spec: tf.TensorSpec) -> tf.Tensor:
    array = np.asarray(value)
    wanted = spec.dtype.as_numpy_dtype
    if array.dtype != wanted:
        raise ValueError(
            f"{name} must be {spec.dtype.name}. Received: {array.dtype.name} of shape {list(array.shape)}."
        )
    if not spec.shape.is_compatible_with(array.shape):
        listed = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise ValueError(f"{name} must have shape [{listed}]. Received: {list(array.shape)}.")
    return tf.constant(array, spec.dtype)


def reason(message: str) -> str:
    """What is wrong, of TensorFlow's message: a check's words, or its own without the places."""
    rule = _RULE.search(message)
    if rule:
        return rule[1]
    return message.partition("unavailable>\n")[2].partition("\n\t")[0] or message
