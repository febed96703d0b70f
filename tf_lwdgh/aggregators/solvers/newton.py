# SPDX-License-Identifier: Apache-2.0
"""What the interior-point methods share: the direction's linear system, and how far one may go along it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

RIDGE = 1e-12  # times the identity, added to a problem's matrix so that rounding cannot make it indefinite
Factor = tuple[tf.Tensor, tf.Tensor]


def with_ridge(matrix: tf.Tensor) -> tf.Tensor:
    """The matrix, kept positive definite."""
    return matrix + RIDGE * tf.eye(tf.shape(matrix)[-1], dtype=matrix.dtype)


def factor(matrix: tf.Tensor) -> Factor:
    """Cholesky's factor of positive definite matrices scaled to a unit diagonal, and the scale."""
    scale = tf.math.rsqrt(tf.linalg.diag_part(matrix))[..., None]
    return tf.linalg.cholesky(matrix * scale * tf.linalg.matrix_transpose(scale)), scale


def backsolve(factors: Factor, right: tf.Tensor) -> tf.Tensor:
    """M⁻¹ right, from M's factor: [..., K]."""
    cholesky, scale = factors
    return (scale * tf.linalg.cholesky_solve(cholesky, scale * right[..., None]))[..., 0]


def total(x: tf.Tensor) -> tf.Tensor:
    """The sum over the last axis, which stays."""
    return tf.reduce_sum(x, -1, keepdims=True)


def room(x: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """The largest share of `change`, at most 1e300, that leaves x ≥ 0: [..., K], [..., K] -> [..., 1]."""
    falls = tf.minimum(change / x, -1e-300)
    return -1 / tf.reduce_min(falls, -1, keepdims=True)


def repeat(
    step: Callable[..., tuple[tf.Tensor, ...]], count: int, values: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, ...]:
    """Runs step(*values) -> (done, *values) until all are done, at most `count` times.

    The first of the values is [..., K], `done` is [..., 1] bool; a step leaves as it is what it reports as done.
    """
    return tf.while_loop(
        lambda done, *_: ~tf.reduce_all(done),
        lambda done, *now: step(*now),
        (tf.zeros_like(values[0][..., :1], tf.bool), *values),  # of one shape throughout, for XLA
        maximum_iterations=count,
        parallel_iterations=1,
    )[1:]
