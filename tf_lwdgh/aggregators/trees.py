# SPDX-License-Identifier: Apache-2.0
"""Pure maths on the tasks' gradients: norms and products of each unit, and weighted sums.

`gradients` is a list with one tensor [T, *shape] a variable; a unit is a list of positions in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.types import Tensors

Units = dict[str, list[int]]  # a unit's name -> the positions of its variables

UNITS = ("variable", "layer", "model")


def make_units(
    kind: str,
    names: Sequence[str],
    layer_names: Sequence[str],
    included: Sequence[bool] | None = None,
) -> Units:
    """Groups variables into the units whose conflict is measured together.

    Args:
      kind: 'variable', 'layer' (all variables of one Keras layer) or 'model' (all at once).
      names: a name a variable.
      layer_names: the name of each variable's layer.
      included: whether each variable belongs to a unit at all; all do by default.

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}. Received: {kind!r}.")
    keys = {"variable": names, "layer": layer_names, "model": ["model"] * len(names)}[kind]
    units: Units = {}
    for position, key in enumerate(keys):
        if included is None or included[position]:
            units.setdefault(key, []).append(position)
    return units


def flatten_unit(gradients: Tensors, members: Sequence[int]) -> tf.Tensor:
    """One unit's gradients as a matrix [T, D]."""
    n_tasks = tf.shape(gradients[members[0]])[0]
    flat = [tf.reshape(gradients[i], [n_tasks, -1]) for i in members]
    return flat[0] if len(flat) == 1 else tf.concat(flat, axis=1)


def safe_norm(x: tf.Tensor) -> tf.Tensor:
    """Euclidean norm over the last axis, without overflow or underflow, and 0 (not NaN) at 0.

    Args:
      x: [..., D].

    Returns:
      [...].
    """
    largest = tf.reduce_max(tf.abs(x), axis=-1, keepdims=True)
    scale = tf.where(largest > 0, largest, tf.ones_like(largest))
    return scale[..., 0] * tf.sqrt(tf.reduce_sum(tf.square(x / scale), axis=-1))


class Measured(NamedTuple):
    """Vectors with their norms and directions, so that each is computed once."""

    vectors: tf.Tensor  # [..., D]
    norms: tf.Tensor  # [...]
    directions: tf.Tensor  # [..., D]; 0 where the vector is 0


def measured(vectors: tf.Tensor) -> Measured:
    """Vectors [..., D] with their norms and directions."""
    norms = safe_norm(vectors)
    return Measured(vectors, norms, tf.math.divide_no_nan(vectors, norms[..., None]))


def measured_units(tensors: Tensors, units: Units) -> list[Measured]:
    """Each unit's part of one tensor a variable, as a vector [D]."""
    rows = [t[None] for t in tensors]
    return [measured(flatten_unit(rows, members)[0]) for members in units.values()]


def cosines(rows: Measured, reference: Measured) -> tf.Tensor:
    """Cosine of each row [T, D] with a reference [D]: [T], in [-1, 1]; 0 where either is 0."""
    cosine = tf.linalg.matvec(rows.directions, reference.directions)
    return tf.clip_by_value(cosine, -1, 1)


def weighted_sum(weights: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Σ_k weights[k] gradient[k].

    Args:
      weights: [T].
      gradient: [T, *shape].

    Returns:
      [*shape].
    """
    return tf.tensordot(weights, gradient, 1)
