# SPDX-License-Identifier: Apache-2.0
"""Convex functions' minima over the simplex: the weights that are at least 0 and sum to 1."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.aggregators.solvers import newton
from tf_lwdgh.aggregators.solvers.newton import total

_STEPS = 30
_GAP, _RESIDUAL = 2e-16, 1e-13

Derivatives = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def simplex_minimum(matrix: tf.Tensor, linear: tf.Tensor) -> tf.Tensor:
    """argmin over the simplex of ½ wᵀ M w + cᵀ w.

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite.
      linear: c, [..., K] float64.

    Returns:
      w [..., K] float64: at least 0, summing to 1. The function is within about 1e-12 of its minimum.
    """
    curvature = newton.with_ridge(matrix)
    return on_simplex(lambda w: (tf.linalg.matvec(matrix, w) + linear, curvature), linear, _STEPS)


def on_simplex(derivatives: Derivatives, like: tf.Tensor, steps: int) -> tf.Tensor:
    """The minimum of a convex function over the simplex, by a primal-dual interior-point method.

    Args:
      derivatives: from w [..., K] to the gradient [..., K] and the Hessian [..., K, K], positive definite.
      like: [..., K].
      steps: Newton steps, at most.
    """
    w = tf.ones_like(like) / tf.cast(tf.shape(like)[-1], like.dtype)
    slope, _ = derivatives(w)
    spread = 0.1 * tf.reduce_max(tf.abs(slope), -1, keepdims=True) + 1e-3
    level = tf.reduce_min(slope, -1, keepdims=True) - spread  # the multiplier of Σ w = 1

    def step(w: tf.Tensor, dual: tf.Tensor, level: tf.Tensor) -> tuple[tf.Tensor, ...]:
        slope, curvature = derivatives(w)
        residual = slope - level - dual
        gap = tf.reduce_mean(w * dual, -1, keepdims=True)
        done = (gap <= _GAP) & (tf.reduce_max(tf.abs(residual), -1, keepdims=True) <= _RESIDUAL)
        ratio = dual / w
        factors = newton.factor(curvature + tf.linalg.diag(ratio))
        ones = newton.backsolve(factors, tf.ones_like(w))

        def direction(unmet: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            free = newton.backsolve(factors, unmet - residual)
            d_level = (1 - total(free + w)) / total(ones)
            dw = free + d_level * ones
            return dw, unmet - ratio * dw, d_level

        dw, dz, _ = direction(-dual)
        reach = tf.minimum(tf.minimum(newton.room(w, dw), newton.room(dual, dz)), 1)
        after = tf.reduce_mean((w + reach * dw) * (dual + reach * dz), -1, keepdims=True)
        centre = tf.maximum((after / gap) ** 3 * gap, 1e-16)  # Mehrotra's choice
        dw, dz, d_level = direction((centre - dw * dz) / w - dual)
        reach = tf.minimum(0.99 * tf.minimum(newton.room(w, dw), newton.room(dual, dz)), 1)
        reach = tf.where(done, tf.zeros_like(reach), reach)
        return done, w + reach * dw, dual + reach * dz, level + reach * d_level

    w = newton.repeat(step, steps, (w, slope - level, level))[0]
    return w / total(w)
