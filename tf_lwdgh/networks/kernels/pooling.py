# SPDX-License-Identifier: Apache-2.0
"""ReLU and 2×2 max-pooling as three passes over whole arrays: forward, its transpose, and its derivative.

A window's value and gradient are those of its first maximum, where ReLU is on. XLA fuses each pass into
one loop; an odd last row or column is left out, as VALID pooling does.
"""

from __future__ import annotations

import tensorflow as tf

DEAD = 4  # the window index that stands for "ReLU is off here"


def windows(x: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [B, H//2, 2, W//2, 2, C]."""
    height, width, channels = x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
    even = x[:, : 2 * height, : 2 * width]
    return tf.reshape(even, [-1, height, 2, width, 2, channels])


def first_maximum(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest of each window, and its place 0 … 3 (int32): two of [B, H//2, W//2, C]."""
    w = windows(x)
    a, b, c, d = (w[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
    top = tf.maximum(tf.maximum(a, b), tf.maximum(c, d))
    return top, tf.where(a == top, 0, tf.where(b == top, 1, tf.where(c == top, 2, 3)))


def route(q: tf.Tensor, index: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Values at the maxima, 0 elsewhere: [B, H//2, W//2, C] -> [B, H, W, C]."""
    places = tf.constant([[0, 1], [2, 3]], index.dtype)[None, None, :, None, :, None]
    is_top = index[:, :, None, :, None, :] == places
    spread = tf.where(is_top, q[:, :, None, :, None, :], tf.zeros([], q.dtype))
    even = tf.reshape(spread, [-1, height // 2 * 2, width // 2 * 2, q.shape[-1]])
    return tf.pad(even, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]])


@tf.function(jit_compile=True, autograph=False)
def gather(u: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """u at the maxima, 0 where ReLU is off: the transpose of `route`."""
    w = windows(u)
    picked = tf.zeros([], u.dtype)
    for place, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        picked += tf.where(index == place, w[:, :, i, :, j], tf.zeros([], u.dtype))
    return picked


def channel_sum(x: tf.Tensor) -> tf.Tensor:
    """Σ over all but the channels, as a product with ones: the fastest reduction on a CPU."""
    rows = tf.reshape(x, [-1, x.shape[-1]])
    return tf.matmul(tf.ones([1, tf.shape(rows)[0]], x.dtype), rows)[0]


def channel_dot(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Σ x y over all but the channels."""
    if x.shape[-1] > 64:  # The product below computes C² sums to keep C of them.
        return channel_sum(x * y)
    x, y = (tf.reshape(a, [-1, a.shape[-1]]) for a in (x, y))
    return tf.linalg.diag_part(tf.matmul(x, y, transpose_a=True))
