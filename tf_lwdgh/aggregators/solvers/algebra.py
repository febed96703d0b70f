# SPDX-License-Identifier: Apache-2.0
"""Lengths, scales and pseudo-inverses, from Gram matrices."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

SCALES = ("published", "mean")  # of methods whose update has a length of its own
SHORTEST = 1e-30  # rows shorter than this, beside a longest of 1, count as 0


class UnitRows(NamedTuple):
    """A Gram matrix taken apart; [..., K] where not stated."""

    cosines: tf.Tensor  # [..., K, K], 1 on the diagonal; 0 beside it where a row is 0
    lengths: tf.Tensor  # 1 where a row is 0
    present: tf.Tensor  # bool, whether a row is not 0


def unit_rows(matrix: tf.Tensor) -> UnitRows:
    """The cosines and lengths of the rows: what does not depend on their lengths is solved for cosines."""
    lengths = tf.sqrt(tf.maximum(tf.linalg.diag_part(matrix), 0))
    present = lengths >= SHORTEST
    inverse = tf.where(present, 1 / lengths, tf.zeros_like(lengths))
    cosines = matrix * inverse[..., :, None] * inverse[..., None, :]
    ones = tf.ones_like(lengths)
    return UnitRows(tf.linalg.set_diag(cosines, ones), tf.where(present, lengths, ones), present)


def pseudo_inverse(matrix: tf.Tensor) -> tf.Tensor:
    """Moore and Penrose's inverse of symmetric matrices [..., K, K].

    Eigenvalues below 1e-10 of the largest count as 0: the gradients are float32, whose dependent rows are
    so to 1e-7, and their squares to 1e-14.
    """
    values, vectors = tf.linalg.eigh(matrix)
    counts = (values > 1e-10 * values[..., -1:]) & (values > 0)
    inverse = tf.where(counts, 1 / tf.where(counts, values, 1), 0)
    return tf.matmul(vectors * inverse[..., None, :], vectors, transpose_b=True)


def normalised(matrix: tf.Tensor) -> tf.Tensor:
    """Matrices divided by their largest diagonal element, [..., K, K]; 0 where that is 0."""
    largest = tf.reduce_max(tf.linalg.diag_part(matrix), -1)
    return tf.math.divide_no_nan(matrix, largest[..., None, None])


def length(matrix: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """‖Σ_k w_k g_k‖: [..., K, K], [..., K] -> [..., 1]."""
    square = tf.reduce_sum(weights * tf.linalg.matvec(matrix, weights), -1, keepdims=True)
    return tf.sqrt(tf.maximum(square, 0))


def as_long_as_the_mean(matrix: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weights whose combination has the mean gradient's length: [..., K, K], [..., K] -> [..., K]."""
    count = tf.cast(tf.shape(weights)[-1], weights.dtype)
    mean = length(matrix, tf.ones_like(weights)) / count
    return weights * tf.math.divide_no_nan(mean, length(matrix, weights))
