# SPDX-License-Identifier: Apache-2.0
"""Conjugate gradients (Hestenes & Stiefel 1952) for matrices known by their products."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.types import Tensors


def solve(matrix: Callable[[Tensors], Tensors], b: Tensors, steps: int) -> Tensors:
    """x with A x ≈ b after some steps from 0, A symmetric and positive definite.

    Each step costs one product, and n steps solve a system of n unknowns. Where A turns out not to
    be positive definite along a direction, x stays as it is; if that is the first direction, b
    itself, x is b. Solved steps change nothing. So the result is finite wherever the products are.

    Args:
      matrix: v -> A v, both one tensor a variable.
      b: one tensor a variable.
      steps: at least 1.
    """
    # At length about 1 no square of a length overflows or vanishes.
    largest = tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(x)) for x in b]))
    b = [tf.math.divide_no_nan(x, largest) for x in b]
    x = [tf.zeros_like(part) for part in b]
    residual, direction, length = b, b, _dot(b, b)
    going = length > 0
    for step in range(steps):
        product = matrix(direction)
        curvature = _dot(direction, product)
        positive = curvature > 0
        if step == 0:
            x = [tf.where(positive, old, new) for old, new in zip(x, b)]
        going = going & positive
        size = tf.where(going, tf.math.divide_no_nan(length, curvature), 0)
        x = [a + size * d for a, d in zip(x, direction)]
        residual = [r - size * p for r, p in zip(residual, product)]
        before, length = length, _dot(residual, residual)
        turn = tf.math.divide_no_nan(length, before)
        direction = [r + turn * d for r, d in zip(residual, direction)]
    return [largest * part for part in x]


def _dot(a: Tensors, b: Tensors) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(x * y) for x, y in zip(a, b)])
