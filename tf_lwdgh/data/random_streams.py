# SPDX-License-Identifier: Apache-2.0
"""The random numbers of tasks: Philox, keyed by hashing (seed, split, step, task, stream).

No state is kept, so that the same tuple gives the same numbers in any process, on any number of threads,
after any restart, and (seed 1, step 5) has nothing to do with (seed 2, step 4).
"""

from __future__ import annotations

import hashlib

import tensorflow as tf

# The independent random streams of a task.
CLASSES, IMAGES, AUGMENTATION, DATASET, LABELS, SHAPE, WEIGHTS, ORDER = range(8)
PHILOX = "philox"  # named, because the default differs between devices


def split_key(seed: int, split: str) -> tf.Tensor:
    """The root of all random numbers of (seed, split): [2] int64, from SHA-256."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed must be an integer. Received: {seed!r}.")
    digest = hashlib.sha256(f"tf_lwdgh episodes/{seed}/{split}".encode()).digest()
    words = [int.from_bytes(digest[i : i + 8], "little", signed=True) for i in (0, 8)]
    return tf.constant(words, tf.int64)


def task_key(
    key: tf.Tensor, step: tf.Tensor | int, task: tf.Tensor | int, stream: int
) -> tf.Tensor:
    """The seed of one random stream of one task.

    Args:
      key: [2] int64 from `split_key`.
      step: scalar integer, the meta-step.
      task: scalar integer, the task's number within its step.
      stream: CLASSES, IMAGES, AUGMENTATION, DATASET, LABELS, SHAPE, WEIGHTS or ORDER.

    Returns:
      [2] int64, for tf.random.stateless_* with alg='philox'.
    """
    for part in (step, task, stream):
        key = tf.random.fold_in(key, tf.cast(part, tf.int64), alg=PHILOX)
    return key


def bits(key: tf.Tensor, shape: tf.Tensor | list[int]) -> tf.Tensor:
    """Independent random int64 of all 64 bits, of the shape."""
    return tf.random.stateless_uniform(
        shape, key, minval=None, maxval=None, dtype=tf.int64, alg=PHILOX
    )


def uniform(key: tf.Tensor, shape: tf.Tensor | list[int]) -> tf.Tensor:
    """Independent random float64 in [0, 1), of the shape."""
    return tf.random.stateless_uniform(shape, key, dtype=tf.float64, alg=PHILOX)


def draw(key: tf.Tensor, sizes: tf.Tensor, largest: int, count: int | tf.Tensor) -> tf.Tensor:
    """`count` different numbers below each of `sizes` [R], in uniform order: [R, count] int32.

    The places of the largest of independent 64-bit random numbers are a uniform draw without
    replacement. Takes memory for R * largest numbers.
    """
    ranks = bits(key, [sizes.shape[0], largest])
    ranks = tf.where(tf.range(largest) < sizes[:, None], ranks, tf.int64.min)
    width = count if isinstance(count, int) else None
    return tf.ensure_shape(tf.math.top_k(ranks, count).indices, [sizes.shape[0], width])


def draw_few(key: tf.Tensor, order: tf.Tensor, sizes: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """counts[r] different numbers below sizes[r], in uniform order, however large the sizes are.

    Floyd's algorithm, all rows at once: for i = 0 … count - 1 a number up to j = size - count + i is drawn,
    and where it was drawn before, j is taken in its place. Every set is equally likely; then each row is
    put into a uniform order.

    Args:
      key: [2] int64, the seed of the numbers.
      order: [2] int64, the seed of their order.
      sizes: [R] int32.
      counts: [R] int32, at most the sizes.

    Returns:
      [R, max(counts)] int32, -1 past each row's count.
    """
    width = tf.reduce_max(counts)
    shape = tf.stack([tf.size(sizes), width])
    numbers = bits(key, shape)
    columns = tf.range(width)

    def step(i: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        last = sizes - counts + i
        below = tf.math.floormod(numbers[:, i], tf.cast(last, tf.int64) + 1)
        new = tf.cast(below, tf.int32)
        new = tf.where(tf.reduce_any(tf.equal(found, new[:, None]), axis=1), last, new)
        new = tf.where(i < counts, new, -1)
        return i + 1, tf.where(tf.equal(columns, i), new[:, None], found)

    start = (tf.constant(0), tf.fill(shape, -1))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, None]))
    _, found = tf.while_loop(lambda i, _: i < width, step, start, shape_invariants=shapes)
    ranks = tf.where(columns < counts[:, None], bits(order, shape), tf.int64.min)
    return tf.gather(found, tf.argsort(ranks, direction="DESCENDING", stable=True), batch_dims=1)
