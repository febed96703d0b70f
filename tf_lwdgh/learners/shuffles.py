# SPDX-License-Identifier: Apache-2.0
"""Orders of a task's examples that are a function of the task's key."""

from __future__ import annotations

import tensorflow as tf


def permutation(count: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """An order of `count` examples by a key [2] int64, [count] int32, by Philox: not vectorized."""
    return tf.random.experimental.stateless_shuffle(tf.range(count), key, alg="philox")


def minibatches(count: int | tf.Tensor, size: int, steps: int, key: tf.Tensor) -> list[tf.Tensor]:
    """Indices of the minibatches of some steps, in shuffled passes over all examples.

    Args:
      count: of the examples.
      size: of a minibatch; larger than `count` repeats examples within one.
      steps: how many minibatches.
      key: [2] int64; the order is a function of it and of nothing else.

    Returns:
      `steps` tensors [size] int32.
    """
    passes = -(-steps * size // count)
    drawn = tf.reshape(noise(passes * count, key), [passes, count])
    order = tf.reshape(tf.argsort(drawn, axis=-1), [-1])
    return [tf.reshape(order[s * size : (s + 1) * size], [size]) for s in range(steps)]


def rounds(labels: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """An order of a task's examples in which every class has its turn before one has its second.

    Args:
      labels: [B] integers.
      key: [2] int64; within a round, and within a class, the order is a function of it.

    Returns:
      [B] int32, a permutation.
    """
    drawn = noise(labels.shape[0] or tf.size(labels), key) / 2.0**53  # in [0, 1)
    same, before = labels[:, None] == labels, drawn[:, None] > drawn
    turn = tf.reduce_sum(tf.cast(same & before, drawn.dtype), -1)
    return tf.argsort(turn + drawn)


def noise(count: int | tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """[count] float64, spread evenly, by SplitMix64 (Steele et al. 2014) from a key [2] int64.

    Not by Philox: no task of tf.vectorized_map may have a key of its own there.
    """
    gamma = tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    key = tf.cast(key, tf.uint64)  # modulo 2⁶⁴
    start = mixed(mixed(key[0] + gamma) ^ key[1])
    counted = tf.cast(tf.range(1, count + 1), tf.uint64)
    words = mixed(start + gamma * counted)
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(11, tf.uint64)), tf.float64)


def mixed(x: tf.Tensor) -> tf.Tensor:
    """SplitMix64's output function: every bit of a uint64 on all."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x ^= tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64))
        x *= tf.constant(factor, tf.uint64)
    return x
