"""The means of each class's features."""

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
