# SPDX-License-Identifier: Apache-2.0
"""Losses and accuracies of logits."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Mean cross-entropy in nats.

    Args:
      logits: [B, N].
      labels: [B] integers in [0, N).
      smoothing: the share of each label that all N classes get alike, in [0, 1).

    Returns:
      A scalar.
    """
    right = tf.reduce_mean(cross_entropies(logits, labels))
    if not smoothing:
        return right
    return (1 - smoothing) * right - smoothing * tf.reduce_mean(tf.nn.log_softmax(logits))


def cross_entropies(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of each row in nats: [B, N], [B] -> [B]."""
    chosen = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    return -tf.reduce_sum(chosen * tf.nn.log_softmax(logits), axis=-1)


def accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The share of rows whose largest logit is the label's: [..., B, N], [..., B] -> [...] float32."""
    hits = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32), axis=-1)
