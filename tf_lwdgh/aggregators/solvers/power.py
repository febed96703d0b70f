# SPDX-License-Identifier: Apache-2.0
"""The equation M α = α^(-e), α > 0; with e = 1 its solution is Nash's."""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.aggregators.solvers import newton
from tf_lwdgh.aggregators.solvers.algebra import unit_rows

_STEPS = 40
_TOLERANCE = 1e-10
_RIDGE = 1e-8  # added to the cosines: keeps weights finite where no solution exists


def power_equation(matrix: tf.Tensor, exponent: float) -> tf.Tensor:
    """The α > 0 with M α = α^(-exponent).

    It is the minimum of ½ αᵀ M α - Σ φ(α), with φ' = α^(-exponent): one solution where 0 is no convex
    combination of the gradients. Where it is one, as with opposed gradients, the solution is that for
    cosines with 1e-8 added to their diagonal.

    With β_k = ‖g_k‖ α_k and the cosines C it reads C β = τ β^(-e), τ_k = ‖g_k‖^(e-1), so that lengths of
    any ratio are solved for alike.

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite, largest diagonal element about 1 (or all 0).
      exponent: e, above 0.

    Returns:
      α [..., K] float64, positive; 1 where a gradient is 0. The relative residual is 1e-10, or what
      rounding allows.
    """
    rows = unit_rows(matrix)
    beta = _solve(rows.cosines, (exponent - 1) * tf.math.log(rows.lengths), exponent)
    return beta / rows.lengths


def _solve(cosines: tf.Tensor, log_targets: tf.Tensor, exponent: float) -> tf.Tensor:
    """β, by a primal-dual Newton method on z = Cβ and log z + e log β = log τ."""
    matrix = cosines + _RIDGE * tf.eye(tf.shape(cosines)[-1], dtype=cosines.dtype)
    beta = tf.exp(log_targets / (1 + exponent))  # the solution for orthogonal gradients

    def step(beta: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, ...]:
        residual = tf.linalg.matvec(matrix, beta) - z
        mismatch = log_targets - tf.math.log(z) - exponent * tf.math.log(beta)
        rounding = 1e-13 * tf.reduce_max(beta, -1, keepdims=True)
        met = (tf.abs(mismatch) <= _TOLERANCE) & (tf.abs(residual) <= _TOLERANCE * z + rounding)
        done = tf.reduce_all(met, -1, keepdims=True)
        factors = newton.factor(matrix + tf.linalg.diag(exponent * z / beta))
        d_beta = newton.backsolve(factors, z * mismatch - residual)
        d_z = tf.linalg.matvec(matrix, d_beta) + residual
        reach = tf.minimum(newton.room(beta, d_beta), newton.room(z, d_z))
        reach = tf.where(done, tf.zeros_like(reach), tf.minimum(0.9 * reach, 1))
        return done, beta + reach * d_beta, z + reach * d_z

    return newton.repeat(step, _STEPS, (beta, beta))[0]
