# SPDX-License-Identifier: Apache-2.0
"""Projections on the dual cone of some gradients, {d : d·g_k ≥ 0 for all k}."""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.aggregators.solvers import newton
from tf_lwdgh.aggregators.solvers.algebra import unit_rows

_STEPS = 30
_GAP, _RESIDUAL = 1e-15, 1e-12


def cone_weights(matrix: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    """argmin over w ≥ lower of ½ wᵀ M w.

    With M the Gram matrix of some gradients this projects Σ_k lower_k g_k on their dual cone: Σ_k w_k g_k
    is the nearest vector that conflicts with none of them (Lopez-Paz & Ranzato 2017, eq. 11). The cone
    does not depend on the gradients' lengths, so it is solved for unit gradients: a small one counts as
    much as a large one. Where a gradient is 0, w is `lower`.

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite.
      lower: [..., K] float64.

    Returns:
      w [..., K] float64. The projection is within about 1e-7 of the target's length.
    """
    rows = unit_rows(matrix)
    target = lower * rows.lengths * tf.cast(rows.present, lower.dtype)
    size = tf.reduce_max(tf.abs(target), -1, keepdims=True)
    target = tf.math.divide_no_nan(target, size)
    linear = tf.linalg.matvec(rows.cosines, target)
    # A gradient of 0 constrains nothing; a cost on its excess keeps that at 0.
    linear = tf.where(rows.present, linear, tf.ones_like(linear))
    excess = _nonnegative(rows.cosines, linear)
    excess = tf.where(rows.present, excess, tf.zeros_like(excess))
    return lower + excess * size / rows.lengths


def _nonnegative(matrix: tf.Tensor, linear: tf.Tensor) -> tf.Tensor:
    """argmin over x ≥ 0 of ½ xᵀ M x + cᵀ x, by Mehrotra's predictor-corrector method (1992).

    With the multipliers z = Mx + c ≥ 0, x∘z = 0 at the solution.
    """
    matrix = newton.with_ridge(matrix)
    start = tf.ones_like(linear)

    def step(x: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, ...]:
        residual = tf.linalg.matvec(matrix, x) + linear - z
        gap = tf.reduce_mean(x * z, -1, keepdims=True)
        done = (gap <= _GAP) & (tf.reduce_max(tf.abs(residual), -1, keepdims=True) <= _RESIDUAL)
        ratio = z / x
        factors = newton.factor(matrix + tf.linalg.diag(ratio))

        def direction(unmet: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx = newton.backsolve(factors, unmet - residual)
            return dx, unmet - ratio * dx

        dx, dz = direction(-z)
        reach = tf.minimum(tf.minimum(newton.room(x, dx), newton.room(z, dz)), 1)
        after = tf.reduce_mean((x + reach * dx) * (z + reach * dz), -1, keepdims=True)
        dx, dz = direction(((after / gap) ** 3 * gap - dx * dz) / x - z)
        reach = tf.minimum(0.99 * tf.minimum(newton.room(x, dx), newton.room(z, dz)), 1)
        reach = tf.where(done, tf.zeros_like(reach), reach)
        return done, x + reach * dx, z + reach * dz

    return newton.repeat(step, _STEPS, (start, start))[0]
