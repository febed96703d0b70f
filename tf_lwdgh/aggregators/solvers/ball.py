# SPDX-License-Identifier: Apache-2.0
"""The vector in a ball around the mean gradient whose smallest product with any gradient is largest.

max_d min_k d·g_k subject to ‖d - ḡ‖ ≤ c‖ḡ‖ (Liu et al. 2021, eq. 3). The dual problem is min over the simplex
of g_w·ḡ + c‖ḡ‖‖g_w‖, and d = ḡ + c‖ḡ‖ g_w/‖g_w‖.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.aggregators.solvers.algebra import length
from tf_lwdgh.aggregators.solvers.newton import total
from tf_lwdgh.aggregators.solvers.simplex_norm import by_newton, where_needed

_ACCURATE = 1e-6  # of the products' distance from the largest possible, beside ‖ḡ‖
_SHORTEST = 1e-5  # below it ‖g_w‖ is smoothed: the weights, g_w's over ‖g_w‖, meet float32 gradients


def best_in_ball(matrix: tf.Tensor, radius: float) -> tf.Tensor:
    """Weights of the gradients whose combination is d.

    Where the gradients nearly cancel, g_w is nearly 0 and its direction is the whole matter: there the dual
    problem is solved once more, the sure way. A gradient of 0 is left out of the minimum, where it would
    forbid any gain.

    Args:
      matrix: the gradients' Gram matrix, [..., K, K] float64, its largest diagonal element about 1.
      radius: c ≥ 0.

    Returns:
      [..., K] float64. The smallest product is within 1e-6‖ḡ‖ of the largest possible; where the
      gradients nearly cancel, within about 1e-4‖ḡ‖.
    """
    share = 1 / tf.cast(tf.shape(matrix)[-1], matrix.dtype)
    along = share * tf.reduce_sum(matrix, -1)  # g_k·ḡ
    mean = tf.sqrt(tf.maximum(share * total(along), 0))
    # Above what any weight can gain.
    absent = tf.linalg.diag_part(matrix) <= 0
    cost = tf.where(absent, (3 + 2 * radius) * mean, along)

    def worst(weights: tf.Tensor) -> tf.Tensor:
        products = tf.where(absent, tf.float64.max, tf.linalg.matvec(matrix, weights))
        return tf.reduce_min(products, -1, keepdims=True)

    factor = radius * mean
    w = by_newton(matrix, cost, factor)
    norm = length(matrix, w)
    bound = total(cost * w) + factor * norm
    pull = tf.where(norm > _SHORTEST, tf.math.divide_no_nan(factor, norm), tf.zeros_like(norm))
    first = share + pull * w
    unsure = ~(bound - worst(first) <= _ACCURATE * mean) & (factor > 0)
    w, t = where_needed(unsure, matrix, cost, factor, shortest=_SHORTEST)
    # Σ w_k g_k / t is at most of length 1, and at the cone's tip the direction that is asked for.
    second = share + factor * w / tf.maximum(t, length(matrix, w))
    return tf.where(unsure & ~(worst(first) > worst(second)), second, first)
