# SPDX-License-Identifier: Apache-2.0
"""The means of each class's features, and how alike features are to them."""

from __future__ import annotations

import tensorflow as tf


def class_means(features: tf.Tensor, labels: tf.Tensor, n_way: int | tf.Tensor) -> tf.Tensor:
    """The mean of each class's rows, [N, D]; 0 for a class without any.

    Args:
      features: [B, D].
      labels: [B] integers in [0, N).
      n_way: N.
    """
    members = tf.one_hot(labels, n_way, dtype=features.dtype, axis=0)
    counts = tf.reduce_sum(members, -1, keepdims=True)
    return tf.math.divide_no_nan(tf.matmul(members, features), counts)


def squared_distances(features: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
    """‖z − c‖² of features [B, D] and means [N, D], summed over D: [B, N]."""
    return tf.reduce_sum(tf.square(features[:, None] - means), -1)


def cosines(features: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
    """Of features [B, D] and means [N, D]: [B, N]; 0 where either is 0."""
    ours, theirs = (tf.math.l2_normalize(x, -1) for x in (features, means))
    return tf.matmul(ours, theirs, transpose_b=True)
