# SPDX-License-Identifier: Apache-2.0
"""The minimum over the simplex of a linear function plus a norm: min_w bᵀw + a‖g_w‖, g_w = Σ_k w_k g_k.

Newton's steps on it end in a few rounds, except near the tip of the norm's cone, where the gradients nearly
cancel: there they may go astray. The other way is slower and sure: the function is the minimum over t > 0 of
bᵀw + (a/2)(‖g_w‖²/t + t), which is convex in both. For each t it is a quadratic program, and t is right where
‖g_w‖ = t: below ‖g_w‖ > t, above ‖g_w‖ < t.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.aggregators.solvers import newton
from tf_lwdgh.aggregators.solvers.algebra import length
from tf_lwdgh.aggregators.solvers.newton import total
from tf_lwdgh.aggregators.solvers.simplex import on_simplex, simplex_minimum

_NEWTON_STEPS = 40
_SECTIONS, _ROUNDS = 9, 7  # each round divides the interval of log t by 9
_ACCURATE = 1e-9
_SHORTEST = 1e-9


def simplex_minimum_with_norm(matrix: tf.Tensor, linear: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """argmin over the simplex of bᵀ w + a √(wᵀ M w).

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite, largest diagonal element about 1.
      linear: b, [..., K] float64.
      factor: a, [..., 1] float64, at least 0.

    Returns:
      w [..., K] float64: at least 0, summing to 1. The function is within about 1e-8 (1 + a) of its minimum.
    """

    def value(w: tf.Tensor) -> tf.Tensor:
        return total(linear * w) + factor * length(matrix, w)

    w = by_newton(matrix, linear, factor)
    slope = linear + factor * tf.math.divide_no_nan(tf.linalg.matvec(matrix, w), length(matrix, w))
    gap = total(slope * w) - tf.reduce_min(slope, -1, keepdims=True)
    unsure = ~(gap <= _ACCURATE) & (factor > 0)
    other, _ = where_needed(unsure, matrix, linear, factor, shortest=_SHORTEST)
    return tf.where(unsure & ~(value(w) < value(other)), other, w)


def by_newton(matrix: tf.Tensor, linear: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The minimum [..., K] where it is not near the cone's tip; some point of the simplex elsewhere."""

    def derivatives(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        along = tf.linalg.matvec(matrix, w)
        norm = tf.sqrt(tf.maximum(total(w * along), 0) + 1e-16)
        unit = along / norm
        curvature = newton.with_ridge(matrix) - unit[..., :, None] * unit[..., None, :]
        return linear + factor * unit, newton.with_ridge((factor / norm)[..., None] * curvature)

    return on_simplex(derivatives, linear, _NEWTON_STEPS)


def where_needed(
    needed: tf.Tensor, matrix: tf.Tensor, linear: tf.Tensor, factor: tf.Tensor, *, shortest: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """The minimum by the sure way, for those problems alone that need it.

    Args:
      needed: [..., 1] bool.
      matrix: as for `simplex_minimum_with_norm`.
      linear: likewise.
      factor: likewise.
      shortest: the least t that is considered; smaller ones make w's multiples w·a/t coarse.

    Returns:
      w [..., K], and t [..., 1], which is ‖g_w‖ where that is above `shortest`; 1/K and 1 where not needed.
    """
    count = tf.shape(linear)[-1]
    places = tf.where(tf.reshape(needed, [-1]))  # [N, 1]

    def chosen(x: tf.Tensor, *shape: int | tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(tf.reshape(x, [-1, *shape]), places)

    w, t = _by_length(chosen(matrix, count, count), chosen(linear, count), chosen(factor, 1), shortest)
    share = 1 / tf.cast(count, linear.dtype)
    w = tf.tensor_scatter_nd_update(tf.reshape(tf.ones_like(linear) * share, [-1, count]), places, w)
    t = tf.tensor_scatter_nd_update(tf.reshape(tf.ones_like(factor), [-1, 1]), places, t)
    return tf.reshape(w, tf.shape(linear)), tf.reshape(t, tf.shape(factor))


def _by_length(matrix: tf.Tensor, linear: tf.Tensor, factor: tf.Tensor, shortest: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The minimum and its length by sections of log t: [N, K, K], [N, K], [N, 1] -> [N, K], [N, 1]."""
    slope = linear / factor

    def minimum(log_t: tf.Tensor) -> tf.Tensor:
        """w for each of S values of t: [N, S] -> [N, S, K]."""
        many = tf.repeat(matrix[:, None], tf.shape(log_t)[1], 1)
        return simplex_minimum(many, tf.exp(log_t)[..., None] * slope[:, None])

    def narrow(i: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, ...]:
        shares = tf.linspace(tf.zeros([], low.dtype), tf.ones([], low.dtype), _SECTIONS + 1)
        log_t = low + (high - low) * shares  # [N, S + 1]
        inner = log_t[:, 1:-1]
        too_short = length(matrix[:, None], minimum(inner))[..., 0] > tf.exp(inner)
        place = tf.reduce_sum(tf.cast(too_short, tf.int32), -1, keepdims=True)
        low = tf.gather(log_t, place, batch_dims=1)
        return i + 1, low, tf.gather(log_t, place + 1, batch_dims=1)

    start = tf.fill(tf.shape(factor), tf.math.log(tf.constant(shortest, factor.dtype)))
    ends = (tf.constant(0), start, tf.zeros_like(factor) + 0.1)
    _, low, high = tf.while_loop(
        lambda i, *_: (i < _ROUNDS) & (tf.size(factor) > 0), narrow, ends, parallel_iterations=1
    )
    middle = (low + high) / 2
    return minimum(middle)[:, 0], tf.exp(middle)
